"""Which devices a mesh has, in which order, and which sizes are refused."""

import types

import jax
import numpy as np
import pytest

from tests.parallel.composed import run
from zaya_jax.errors import UserError
from zaya_jax.parallel import AXES, make_mesh, mesh_shape


def devices(count: int, processes: int = 1):
    """As many stand-ins, enough for what is refused before a mesh is made."""
    return [types.SimpleNamespace(id=i, process_index=i * processes // count) for i in range(count)]


@pytest.mark.parametrize(
    "sizes, available, expected",
    [
        ((-1, 1, 1, 1), 8, (8, 1, 1, 1)),
        ((2, -1, 1, 2), 8, (2, 2, 1, 2)),
        ((1, 1, 4, -1), 4, (1, 1, 4, 1)),
        ((2, 1, 1, 2), 8, (2, 1, 1, 2)),
    ],
)
def test_minus_one_is_the_rest(sizes, available, expected):
    assert mesh_shape(dict(zip(AXES, sizes, strict=True)), available) == expected


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"data": 3}, "the mesh does not divide the devices; expected a divisor of 8; found data=3"),
        ({"data": -1, "context": 3}, "the mesh does not divide the devices; .*found data=-1, context=3"),
        ({"data": 4, "fsdp": 4}, "the mesh is larger than the machine; expected 16 devices; found 8"),
        ({"data": -1, "fsdp": -1}, "no mesh has these sizes; .*one of them -1 at most; found data=-1, fsdp=-1"),
        ({"expert": 0}, "no mesh has these sizes; .*found expert=0"),
        ({"model": 2}, "unknown mesh axis; .*found model"),
    ],
)
def test_sizes_that_fit_no_machine(sizes, message):
    with pytest.raises(UserError, match=message):
        make_mesh(devices(8), **sizes)


def test_several_processes_leave_no_device_out():
    with pytest.raises(UserError, match="a mesh over several processes takes all devices; expected 8; found 4; -1"):
        make_mesh(devices(8, processes=2), fsdp=4)


def test_neighbours_along_context_and_experts_are_neighbours(root, monkeypatch):
    run(root, monkeypatch, "ordered()")


def test_one_device_is_a_mesh_too():
    assert dict(make_mesh(data=-1, devices=jax.devices()[:1]).shape) == dict.fromkeys(
        ("data", "fsdp", "expert", "context"), 1
    )
    assert np.size(make_mesh().devices) == 1
