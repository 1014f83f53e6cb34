"""Sampling and scoring: requests in, completions out (`request`, `generate`, `chat`); tokens in, scores out (`score`)."""
