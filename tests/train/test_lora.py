"""Who is trained when adapters are: the optimizer's tree, the loss's parameters, the export's."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from tests.model.helpers import quick_jit, random_variables
from tests.train.models import random_batch, tiny
from zaya_jax.errors import UserError
from zaya_jax.model import Execution
from zaya_jax.model.lora import LoraConfig, count_lora, init_lora
from zaya_jax.train.lora import (
    adapter_memory_shardings,
    adapter_optimizer,
    adapter_shardings,
    export_params,
    loss_params,
    trained_and_frozen,
)
from zaya_jax.train.objective import batch_loss
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.trainer import Trainer

CONFIG, LORA, KEY = tiny(), LoraConfig(rank=2, alpha=4.0), jax.random.key(3)
BATCH = random_batch(CONFIG)


@functools.partial(quick_jit, static_argnums=(0, 1))
def step(trainer, lora, trained, frozen, memory, balance):
    """One update by the mean loss of the batch, at a rate of 0.02."""

    def loss(trained):
        total, count, _ = batch_loss(trainer, loss_params(lora, trained, frozen), balance, BATCH)
        return total / count

    value, gradient = jax.value_and_grad(loss)(trained)
    pushes, memory = adapter_optimizer(trainer.optimizer, trainer.model, LORA).update(gradient, memory, trained)
    return optax.apply_updates(trained, jax.tree.map(lambda p: 0.02 * p, pushes)), memory, value


@functools.cache
def trained(layout="stacked", steps=25):
    variables = random_variables(CONFIG, Execution())
    trainer = Trainer(CONFIG, Execution(layout=layout), OptimizerConfig(weight_decay=0.0))
    adapters, base = trained_and_frozen(CONFIG, LORA, variables["params"], KEY)
    memory, losses = adapter_optimizer(trainer.optimizer, trainer.model, LORA).init(adapters), []
    for _ in range(steps):
        adapters, memory, value = step(trainer, LORA, adapters, base, memory, variables["balance"])
        losses.append(float(value))
    return adapters, memory, losses


def test_the_loss_falls_and_only_adapters_have_moved():
    adapters, _, losses = trained()
    assert losses[-1] < 0.8 * losses[0]
    fresh = init_lora(CONFIG, LORA, KEY)
    moved = jax.tree.map(lambda new, old: bool(np.any(new != old)), adapters, fresh)
    assert all(jax.tree.leaves(moved))


def test_the_exported_model_has_the_loss_that_training_saw():
    """The merged parameters, as plain ones, in the loss of the trainer."""
    adapters, _, losses = trained(steps=26)
    before, variables = trained(steps=25)[0], random_variables(CONFIG, Execution())
    merged = export_params(CONFIG, LORA, before, variables["params"])
    assert jax.tree.structure(merged) == jax.tree.structure(variables["params"])
    total, count, _ = batch_loss(Trainer(CONFIG, Execution()), merged, variables["balance"], BATCH)
    assert float(total / count) == pytest.approx(losses[25], rel=1e-5)


def test_the_unstacked_layout_trains_alike():
    for ours, theirs in zip(trained("unstacked", 3)[2], trained("stacked", 3)[2], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_the_optimizer_remembers_two_numbers_a_trained_one_and_nothing_of_the_base():
    arrays = [leaf for leaf in jax.tree.leaves(trained()[1]) if leaf.ndim]
    assert sum(leaf.size for leaf in arrays) == 2 * count_lora(CONFIG, LORA)


def test_the_update_is_adamw_after_clipping():
    """The first one: the sign of the gradient, and the decay of both matrices."""
    adapters = jax.tree.map(lambda leaf: leaf + 0.5, init_lora(CONFIG, LORA, KEY))
    update = adapter_optimizer(OptimizerConfig(weight_decay=0.25, clip=1.0), CONFIG, LORA)
    gradient = jax.tree.map(lambda leaf: jnp.full(leaf.shape, -7.0), adapters)
    pushes, memory = update.update(gradient, update.init(adapters), adapters)
    for push, leaf in zip(jax.tree.leaves(pushes), jax.tree.leaves(adapters)):
        np.testing.assert_allclose(push, 1 - 0.25 * leaf, rtol=1e-4)
    assert float(optax.tree.norm(optax.tree_utils.tree_get(memory, "mu"))) == pytest.approx(0.1, rel=1e-4)


def test_without_adapters_the_parameters_are_trained():
    params = random_variables(CONFIG, Execution())["params"]
    trained, frozen = trained_and_frozen(CONFIG, None, params, KEY)
    assert trained is params and frozen is None
    assert loss_params(None, trained, frozen) is params is export_params(CONFIG, None, trained, frozen)


def test_muon_is_refused():
    with pytest.raises(UserError, match=r"AdamW.*'muon'"):
        adapter_optimizer(OptimizerConfig("muon"), CONFIG, LORA)


def test_shardings_are_a_tree_like_the_adapters():
    mesh = jax.sharding.AbstractMesh((1, 2, 3, 1), ("data", "fsdp", "expert", "context"))
    place = adapter_shardings(CONFIG, LORA, mesh)
    assert jax.tree.structure(place) == jax.tree.structure(init_lora(CONFIG, LORA, KEY))
    down = place["layers"]["block_0"]["experts"]["down"]
    assert (down["a"].spec, down["b"].spec) == (P(None, "expert", None, None), P(None, "expert", "fsdp", None))
    memory = adapter_memory_shardings(OptimizerConfig(), CONFIG, LORA, mesh)["layers"]["block_0"]["experts"]["down"]
    assert memory["a"].spec == P("fsdp", "expert", None, None)  # a free axis splits the layers
    plain = adapter_memory_shardings(OptimizerConfig(zero1=False), CONFIG, LORA, mesh)
    assert plain == place


SHARDED = """
import jax
from tests.model.adapters import random_adapters
from tests.model.helpers import EXACT, assert_close, quick_jit, random_variables
from tests.train.models import random_batch, tiny
from zaya_jax.model import Execution
from zaya_jax.model.layout import build
from zaya_jax.model.lora import LoraConfig
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.parallel import make_mesh
from zaya_jax.train.lora import adapter_optimizer, adapter_shardings, loss_params
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.objective import batch_loss
from zaya_jax.train.trainer import Trainer

config, lora, batch = tiny(num_experts=4), LoraConfig(2, 4.0), random_batch(tiny(), 8)
variables = random_variables(config, EXACT)
adapters = random_adapters(config, lora, "float64")

def slope(execution, adapters, variables):
    def loss(adapters):
        params = loss_params(lora, adapters, variables["params"])
        total, _, out = batch_loss(Trainer(config, execution), params, variables["balance"], batch)
        return total, (out.logits, out.routes_LBT)
    out, gradient = jax.value_and_grad(loss, has_aux=True)(adapters)
    update = adapter_optimizer(OptimizerConfig(epsilon=1e-2), config, lora, execution.mesh)
    return out, gradient, update.update(gradient, update.init(adapters), adapters)

mesh = make_mesh(data=2, fsdp=2, expert=2)
placed = jax.device_put(
    (adapters, variables),
    (adapter_shardings(config, lora, mesh), build(config, "stacked", slot_sharding(mesh))),
)
found = quick_jit(lambda *args: slope(Execution("float64", mesh=mesh), *args))(*placed)
assert_close(found, quick_jit(lambda *args: slope(EXACT, *args))(adapters, variables), 1e-9)
print("fine")
"""


def test_sharded_adapters_have_the_loss_and_gradients_of_one_device(root, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(root))
    done = subprocess.run([sys.executable, "-c", SHARDED], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "fine" in done.stdout, done.stderr
