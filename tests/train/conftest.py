"""What is computed, not what LLVM makes of it: programs of this folder are compiled quickly."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def quickly(quick_programs):
    """See `quick_programs`; runs that tests start as processes inherit it."""
