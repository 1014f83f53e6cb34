"""The engine on meshes of 8 devices."""

import pytest

from tests.parallel.composed import run


@pytest.mark.parametrize(
    "mesh",
    [{"data": 2, "expert": 4, "dispatch": "dense"}, pytest.param({"data": 4, "fsdp": 2}, marks=pytest.mark.slow)],
    ids=str,
)
def test_answers_on_a_mesh_are_those_of_one_device(root, monkeypatch, mesh):
    run(root, monkeypatch, f"from tests.parallel.engine import engine_on; engine_on({mesh})")
