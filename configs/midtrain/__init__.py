"""Midtraining."""
