"""Settings and fixtures that every test shares."""

import contextlib
import os
from pathlib import Path

import hypothesis
import jax
import pytest

ROOT = Path(__file__).resolve().parent.parent

COMPILED = {
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0,
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": -1,
}
for variable, value in COMPILED.items():
    if variable not in os.environ:
        os.environ[variable] = str(value)  # for the launchers that tests start
        jax.config.update(variable.lower(), value)

hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None, max_examples=25)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def tmp_workdir(tmp_path, monkeypatch) -> Path:
    """An empty folder that is the current one while the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def x64():
    """64-bit types while the test runs; off again for its neighbours."""
    with jax.enable_x64(True):
        yield


@contextlib.contextmanager
def quickly_compiled():
    """Programs compiled meanwhile, by launchers too, are optimised little: half of the time to compile is saved."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
            yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def quick_programs():
    """For modules that test what is computed, not what LLVM makes of it."""
    with quickly_compiled():
        yield


_MANY_MAPS = 40_000  # a process may have 65,530


@pytest.fixture(autouse=True)
def few_programs():
    """Forgets compiled programs when there are too many: each keeps maps of memory, and without one left XLA aborts."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MANY_MAPS:
        jax.clear_caches()
