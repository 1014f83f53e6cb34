"""Fixtures of the evaluation's tests."""

from tests.environments.stand_ins import grading  # noqa: F401
