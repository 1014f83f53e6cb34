"""What a run remembers of a weight lies where the weight does."""

import jax
import pytest
from jax.sharding import PartitionSpec as P

from tests.model.helpers import FULL, small
from zaya_jax.model import Execution
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.sharding import abstract_state
from zaya_jax.train.step import Trainer, init_state


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_memories_lie_with_their_weights(name):
    mesh = jax.sharding.AbstractMesh((1, 8, 1, 1), ("data", "fsdp", "expert", "context"))
    trainer = Trainer(small((FULL, FULL)), Execution(), OptimizerConfig(name))
    state = abstract_state(trainer, mesh)
    real = jax.eval_shape(lambda key: init_state(trainer, key), jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), real)

    gate_up = state.params["layers"]["block_0"]["experts"]["gate_up"]
    assert gate_up.sharding.spec == P(None, "expert", None, "fsdp")
    specs = [x.sharding.spec for x in jax.tree.leaves(state.optimizer) if x.shape == gate_up.shape]
    assert specs == [gate_up.sharding.spec] * (2 if name == "adamw" else 1)
    assert all(x.sharding.spec == P() for x in jax.tree.leaves(state) if not x.shape)
