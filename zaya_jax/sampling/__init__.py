"""Sampling (`request`, `generate`, `chat`): requests in, completions out. Scoring: tokens in, scores out (`score`)."""
