"""Fixtures of the evaluation's tests."""

import pytest

from tests.evaluation.searching import write_roomy


@pytest.fixture(scope="session")
def roomy(tmp_path_factory):
    """The directory of a tiny model with room for prompts."""
    return write_roomy(tmp_path_factory.mktemp("checkpoint") / "roomy")
