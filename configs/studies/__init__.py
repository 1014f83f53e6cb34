"""Comparisons of ways to train, each with several seeds (experiments/study.py)."""
