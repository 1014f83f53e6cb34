"""Fixtures of the environments' tests."""

from tests.environments.stand_ins import grading  # noqa: F401
