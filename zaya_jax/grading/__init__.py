"""Judging answers: what a response answers, whether that equals the gold answer, whether its program passes tests."""
