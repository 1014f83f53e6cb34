"""Where the state of a run lies on a mesh, and that each device orthogonalises matrices of its own."""

import math
import subprocess
import sys

import jax
import pytest
from jax.sharding import PartitionSpec as P

from tests.model.helpers import FULL, small
from zaya_jax.model import PRESETS, Execution
from zaya_jax.model.layout import Slot
from zaya_jax.model.weights import weights
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.sharding import abstract_state
from zaya_jax.train.step import init_state
from zaya_jax.train.trainer import Trainer
from zaya_jax.train.zero import memory_spec

LARGE = PRESETS["zaya1_8b"]()
GATE_UP, Q_PROJ, EMBEDDING, NORM, CONV = (
    "params/layers/experts/gate_up",
    "params/layers/attention/q_proj",
    "params/embedding",
    "params/layers/experts/norm",
    "params/layers/attention/grouped_weight",
)


def abstract_mesh(**sizes):
    names = ("data", "fsdp", "expert", "context")
    return jax.sharding.AbstractMesh(tuple(sizes.get(name, 1) for name in names), names)


def spec(path, muon=True, **sizes):
    layers = tuple(range(LARGE.num_layers)) if "layers" in path else ()
    slot = Slot(path, weights(LARGE)[path], layers, stacked=bool(layers))
    return memory_spec(slot, abstract_mesh(**sizes), muon)


@pytest.mark.parametrize(
    ("path", "sizes", "expected"),
    [
        (GATE_UP, {"data": 8}, P("data", "expert", None, "fsdp")),
        (GATE_UP, {"data": 16, "fsdp": 5}, P("fsdp", ("expert", "data"), None, None)),  # 5 divides no width
        (GATE_UP, {"data": 16, "expert": 4, "context": 5}, P("context", "expert", None, "fsdp")),
        (GATE_UP, {"data": 4, "expert": 4, "context": 20}, P("context", ("expert", "data"), None, "fsdp")),
        (GATE_UP, {"fsdp": 2, "data": 2, "context": 2}, P(("context", "data"), "expert", None, "fsdp")),
        (GATE_UP, {"data": 3, "fsdp": 8}, P(None, "expert", None, "fsdp")),  # 3 divides nothing
        (GATE_UP, {"data": 64}, P(None, "expert", None, "fsdp")),  # nor does 64: matrices stay whole
        (Q_PROJ, {"fsdp": 4, "expert": 2}, P("expert", None, "fsdp")),  # where there are no experts, it is one more
        (EMBEDDING, {"data": 8, "fsdp": 2}, P("data", "fsdp")),
        (EMBEDDING, {"data": 256}, P(None, ("fsdp", "data"))),  # 262,272 = 128 x 2,049
        (NORM, {"data": 8, "fsdp": 4, "context": 5}, P(("context", "data"), "fsdp")),
        (CONV, {"data": 8, "fsdp": 4, "context": 5}, P(("context", "fsdp"), "data", None, None)),
    ],
)
def test_memories_of_zaya1_8b(path, sizes, expected):
    assert (LARGE.num_layers, LARGE.num_experts, LARGE.vocab_size) == (40, 16, 262_272)
    assert spec(path, **sizes) == expected


def test_adamw_splits_matrices_too():
    assert spec(GATE_UP, muon=False, data=3, fsdp=2, context=64) == P(None, "expert", "context", "fsdp")


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("zero1", [True, False])
def test_the_state_of_a_run(name, zero1):
    mesh = abstract_mesh(data=2, fsdp=2)
    trainer = Trainer(small((FULL,) * 4), Execution(), OptimizerConfig(name, zero1=zero1))
    state = abstract_state(trainer, mesh)
    real = jax.eval_shape(lambda key: init_state(trainer, key), jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), real)

    gate_up = state.params["layers"]["block_0"]["experts"]["gate_up"]
    assert gate_up.sharding.spec == P(None, "expert", None, "fsdp")
    specs = [x.sharding.spec for x in jax.tree.leaves(state.optimizer) if x.shape == gate_up.shape]
    assert specs == [P("data", "expert", None, "fsdp") if zero1 else gate_up.sharding.spec] * (
        2 if name == "adamw" else 1
    )
    assert all(x.sharding.spec == P() for x in jax.tree.leaves(state) if not x.shape)


def device_bytes(state):
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(state) if x.shape)


@pytest.mark.parametrize("sizes", [{"data": 8}, {"data": 2, "fsdp": 4}, {"context": 8}, {"expert": 8}])
def test_eight_devices_hold_an_eighth_of_the_memories_each(sizes):
    trainer = Trainer(LARGE, Execution(), OptimizerConfig("muon"))
    whole = device_bytes(abstract_state(trainer, abstract_mesh()).optimizer)
    each = device_bytes(abstract_state(trainer, abstract_mesh(**sizes)).optimizer)
    assert each == whole / 8


PROGRAM = """
import re
import jax
from tests.model.helpers import FULL, assert_close, quick_jit, random_tensors, small, to_variables
from zaya_jax.model.layout import build
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.parallel import make_mesh
from zaya_jax.train.optimizer import OptimizerConfig, memory_shardings, optimizer

model = small((FULL,) * {layers}, num_experts=8)
draws = [to_variables(model, "stacked", random_tensors(model, seed), "float64")["params"] for seed in range(3)]

def two_steps(update):
    def run(weights, first, second):
        _, state = update.update(first, update.init(weights), weights)
        return update.update(second, state, weights)
    return run

def check_places(tree, places):
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        for i in range(len(path)):
            assert path[i:] not in places or x.sharding.is_equivalent_to(places[path[i:]], x.ndim), path

def check(config, mesh):
    home = build(model, "stacked", slot_sharding(mesh))["params"]
    placed = jax.device_put(draws, [home] * 3)
    compiled = quick_jit(two_steps(optimizer(config, model, "stacked", mesh))).lower(*placed).compile()
    updates, state = compiled(*placed)
    assert_close((updates, state), quick_jit(two_steps(optimizer(config, model, "stacked")))(*draws), 1e-10)
    check_places(updates, dict(jax.tree_util.tree_leaves_with_path(home)))
    memories = memory_shardings(config, model, "stacked", mesh)
    check_places(state, dict(jax.tree_util.tree_leaves_with_path(memories)))
    return home, compiled.as_text()

def shapes(text, operation):
    found = re.findall(r"= f64\\[([0-9,]*)\\]\\S* " + operation + r"\\(", text)
    return [tuple(int(n) for n in sizes.split(",")) for sizes in found]

def check_program(home, text):
    # Updates are gathered, once each, to what a device has of the weight; nothing else is.
    expected = [place.shard_shape(x.shape) for place, x in zip(jax.tree.leaves(home), jax.tree.leaves(draws[0]))]
    for shape in shapes(text, "all-gather"):
        expected.remove(shape)
    # Of the eight layers' matrices, a device multiplies its own; of the experts', a layer's at a time.
    dots = shapes(text, "dot")
    assert all(len(shape) == 2 or shape[0] == 1 for shape in dots if len(shape) < 4 and shape[-2] != 24), dots

for name, momentum, zero1, sizes in {cases}:
    config, mesh = OptimizerConfig(name, momentum=momentum, zero1=zero1), make_mesh(**sizes)
    home, text = check(config, mesh)
    if name == "muon" and {layers} == 8:
        check_program(home, text)
print("fine")
"""
THREE, TWO, UNEVEN = {"data": 2, "fsdp": 2, "context": 2}, {"fsdp": 2, "expert": 4}, {"data": 2, "fsdp": 4}
EVEN_CASES = [("muon", 0.95, True, THREE), ("muon", 0.0, True, TWO), ("adamw", 0.0, True, THREE)]
UNEVEN_CASES = [("muon", 0.95, True, UNEVEN), ("muon", 0.95, False, UNEVEN), ("muon", 0.95, True, {"data": 8})]


@pytest.mark.parametrize(("layers", "cases"), [(8, EVEN_CASES), (6, UNEVEN_CASES)])
def test_updates_on_eight_devices_equal_those_of_one(root, monkeypatch, layers, cases):
    """Float64, with memories and updates where they belong; gathered is nothing but the update."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(root))
    program = PROGRAM.format(layers=layers, cases=cases)
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "fine" in done.stdout, done.stderr
    assert "rematerialization" not in done.stderr
