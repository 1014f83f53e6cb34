"""Fixtures of the kernels' tests."""

import jax
import pytest


@pytest.fixture(autouse=True)
def rank_promotion():
    """See tests/model/conftest.py."""
    with jax.numpy_rank_promotion("allow"):
        yield
