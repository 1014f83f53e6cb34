"""Supervised finetuning."""
