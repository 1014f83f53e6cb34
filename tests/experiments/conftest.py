"""Fixtures of the launchers' tests."""

import pytest

from tests.experiments.launching import write_tiny


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The directory of a tiny model with a tokenizer and a chat template."""
    return write_tiny(tmp_path_factory.mktemp("checkpoint") / "tiny")
