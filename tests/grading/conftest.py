"""Sandboxes of every isolation that works here."""

import pytest

from zaya_jax.grading.isolation import why_not
from zaya_jax.grading.sandbox import Sandbox


@pytest.fixture(params=["bwrap", "unshare"])
def isolation(request) -> str:
    if reason := why_not(request.param):
        pytest.skip(f"{request.param} does not work here: {reason}")
    return request.param


@pytest.fixture
def sandbox(isolation) -> Sandbox:
    return Sandbox(isolation=isolation)
