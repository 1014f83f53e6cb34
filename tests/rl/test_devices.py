"""Which devices learn and which sample, on a machine that has one."""

import jax
import pytest

from tests.rl.test_plan import tiny
from zaya_jax.errors import UserError
from zaya_jax.rl.config import PipelineConfig
from zaya_jax.rl.devices import Devices, divide
from zaya_jax.train.config import MeshConfig


def test_one_device_has_no_mesh():
    assert divide(tiny(mesh=MeshConfig(data=1))) == Devices(None, None)
    assert divide(tiny(mesh=MeshConfig(data=1), pipeline=PipelineConfig())) == Devices(None, None)


def test_mistakes(monkeypatch):
    count = len(jax.devices())
    with pytest.raises(UserError, match=rf"leaves the learner no device; expected at most {count - 1} of {count}"):
        divide(tiny(pipeline=PipelineConfig(devices=count)))
    with pytest.raises(UserError, match=r"pipeline.devices: out of range; expected 0 or more; found -1"):
        PipelineConfig(devices=-1)
    with pytest.raises(UserError, match="larger than the machine"):
        divide(tiny(mesh=MeshConfig(data=count + 1)))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="reinforcement learning has one process; expected 1; found 2"):
        divide(tiny())
