"""What every test of the sampler shares."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def quickly(quick_programs):
    """Answers are held against forward passes, whatever LLVM makes of either."""


@pytest.fixture
def optimized():
    """Programs as users have them, compiled anew; forgotten again for its neighbours."""
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    jax.clear_caches()
