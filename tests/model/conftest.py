"""Fixtures of the model's tests."""

import jax
import pytest


@pytest.fixture(autouse=True)
def rank_promotion():
    """The model adds a [D] to a [B, T, D] as everyone does; only the shapes' last letters may meet so."""
    with jax.numpy_rank_promotion("allow"):
        yield
