"""What the tests of the server share."""

import dataclasses

import pytest

# What needs the extra is imported in the fixtures: a conftest cannot be skipped.


@pytest.fixture(scope="module", autouse=True)
def quickly(quick_programs):
    """Answers are held against those of an engine of the same programs."""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The directory of a tiny model."""
    from tests.serving.served import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture(scope="session")
def tokenizer(checkpoint):
    """Its tokenizer: byte-level, id 7 + b is byte b."""
    from zaya_jax.text.tokenizer import load_tokenizer

    return load_tokenizer(checkpoint)


@pytest.fixture(scope="module")
def service(checkpoint, quick_programs):
    """The tiny model, being served."""
    from tests.serving.served import OPTIONS
    from zaya_jax.serving.server import make_service

    return make_service(dataclasses.replace(OPTIONS, checkpoint=str(checkpoint)))


@pytest.fixture(scope="module")
def address(service):
    """Where."""
    from tests.serving.served import listening

    with listening(service) as where:
        yield where


@pytest.fixture(scope="module")
def client(address):
    """OpenAI's own client. It does not try again: a refusal is to be seen."""
    openai = pytest.importorskip("openai", reason='needs the extra "serve-test"')
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client
