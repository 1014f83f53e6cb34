"""A whole training step on a mesh of eight devices is the step of one: float64, in a process of its own."""

import os
import subprocess
import sys

PROGRAM = """
import dataclasses, jax, numpy as np
from tests.model.helpers import quick_jit
from tests.train.models import random_batch, tiny
from zaya_jax.model import Execution
from zaya_jax.parallel import make_mesh
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.sharding import abstract_state
from zaya_jax.train.step import init_state, train_step
from zaya_jax.train.trainer import Trainer

config = tiny(num_experts=4)
batch = random_batch(config, rows=8, length=12)
plain = Trainer(config, Execution("float64"), OptimizerConfig("muon"), loss_chunk=5)

def two_steps(trainer, state):
    step = quick_jit(train_step, static_argnums=0)
    losses = []
    for _ in range(2):
        state, metrics = step(trainer, state, batch, 1e-2)
        losses.append(metrics.loss)
    return jax.device_get((losses, metrics.router_counts_LC, state.params, state.balance))

expected = two_steps(plain, init_state(plain, jax.random.key(0)))
mesh = make_mesh(data=2, expert=2, context=2)
trainer = dataclasses.replace(plain, execution=Execution("float64", mesh=mesh))
places = jax.tree.map(lambda x: x.sharding, abstract_state(trainer, mesh))
found = two_steps(trainer, jax.device_put(init_state(plain, jax.random.key(0)), places))
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10), found, expected)
print("fine")
"""


def test_loss_in_chunks_routes_and_updates(root):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    environment = {**os.environ, **flags, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "fine" in done.stdout, done.stderr
