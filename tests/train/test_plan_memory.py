"""Bytes of a plan: counted by hand, against the shapes of the state itself, and against what XLA:ROCm assigns."""

import functools
import itertools
import json
import math

import jax
import jax.numpy as jnp
import pytest

from tests.train.models import tiny
from zaya_jax.model import PRESETS, Execution
from zaya_jax.model.layout import build
from zaya_jax.model.weights import count_parameters
from zaya_jax.model.zaya import Inputs, block
from zaya_jax.train import plan_memory as pm
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.plan_page import MI300X, compiled, compiled_setup
from zaya_jax.train.plan_setup import Setup, Sizes, trained
from zaya_jax.train.sharding import abstract_state
from zaya_jax.train.trainer import Trainer

MODEL = tiny(num_experts=4)
MESHES = [
    {},
    {"data": 2},
    {"fsdp": 2},
    {"expert": 4},
    {"context": 2},
    {"data": 2, "fsdp": 4},
    {"expert": 2, "context": 2},
]


def setup(model=MODEL, sizes=None, optimizer=None, **more) -> Setup:
    sizes = Sizes(**(sizes or {}))
    values = {"rows": 8, "length": 12, "optimizer": OptimizerConfig(name="adamw", **(optimizer or {}))} | more
    return Setup(model, sizes=sizes, devices_per_node=math.prod(sizes), **values)


def parameters(*arguments, **more) -> float:
    s = setup(*arguments, **more)
    return pm.parameters(s, tuple(trained(s))).bytes


def test_parameters_of_one_device_are_those_of_the_table_and_the_phantom_of_layer_0():
    assert parameters() == 4 * (count_parameters(MODEL) + MODEL.router_hidden_size)


def test_fsdp_halves_what_has_an_axis_of_the_models_width():
    D, V, R, E, F, U, H, L = 16, 29, 8, 4, 8, 32, 8, 2
    heads, half = 2 * H, H  # query and key width, delayed values
    model = V * D + 3 * D
    layer = 10 * D + 2 * heads * D + 2 * half * D + D * heads + R * D + E * 3 * F * D
    whole = 2 * U + U + U * H * 2 + U + 2 + R * 3 + 2 * (R * R + R) + (E + 1) * R
    assert parameters() == 4 * (model + L * (layer + whole))
    assert parameters(sizes={"fsdp": 2}) == 4 * (model / 2 + L * (layer / 2 + whole))


def test_an_axis_that_does_not_divide_stays_whole():
    assert parameters(tiny(num_experts=3), {"expert": 2}) == parameters(tiny(num_experts=3))
    experts = 2 * 4 * 3 * 8 * 16
    assert parameters(sizes={"expert": 2}) == parameters() - 4 * experts / 2


@pytest.mark.parametrize(
    "optimizer", [{}, {"name": "muon"}, {"name": "muon", "momentum": 0.0}, {"zero1": False}], ids=str
)
@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_the_state_is_as_large_as_the_one_that_is_trained(sizes, optimizer):
    config = OptimizerConfig(**({"name": "adamw"} | optimizer))
    s = Setup(MODEL, 8, 12, Sizes(**sizes), optimizer=config, devices_per_node=math.prod(sizes.values()))
    state = abstract_state(Trainer(MODEL, Execution("bfloat16"), config), s.mesh)
    real = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(state))
    planned = sum(item.bytes for item in pm.memory(s).state if item.what != "batch")
    assert 0 <= real - planned <= 16  # counters of steps


def test_the_batch_of_a_device_holds_all_microbatches():
    s = setup(sizes={"data": 2, "context": 2}, rows=16, accumulate=2)
    assert (s.local_rows, s.local_tokens) == (4, 24)
    assert pm.batch(s).bytes == 5 * 4 * (16 // 2) * (12 // 2)


def test_gradients_lie_as_memories_and_a_sum_stands_beside_them_with_accumulation():
    s = setup(sizes={"data": 2}, optimizer={"zero1": False})
    assert pm.gradients(s, tuple(trained(s))).bytes == parameters()
    split = setup(sizes={"data": 2})  # divides the layers
    assert pm.gradients(split, tuple(trained(split))).bytes < 0.6 * parameters()
    whole = setup(sizes={"data": 4})  # divides the experts, but they come layer by layer
    assert pm.gradients(whole, tuple(trained(whole))).bytes > 0.8 * parameters()
    summed = setup(accumulate=2)
    *moments, update = pm.memory(summed).moments.values()
    assert all(items[0] == pm.Item("sum over microbatches", parameters(), "as the gradients") for items in moments)
    assert update == pm.memory(setup()).moments["the update"]  # the sum is then the gradient


def test_residuals_are_those_of_the_gradient():
    """XLA keeps equal arrays once: the normed inputs of q, k, v and delayed v, and attention's result and its rows."""
    model, T = tiny(hidden_size=64, expert_hidden_size=48, num_experts=3), 80
    execution = Execution("bfloat16", attention="interpret", cca="interpret", experts="interpret")
    tree = build(model, "stacked", lambda s: jax.ShapeDtypeStruct(s.shape[1:] if s.stacked else s.shape, jnp.float32))
    w, array = tree["params"]["layers"]["block_0"], jax.ShapeDtypeStruct
    stream, state = array((1, T, 64), jnp.float32), array((1, T, model.router_hidden_size), jnp.float32)

    def residuals(w, stream, state):
        ids = jnp.ones((1, T), jnp.int32)
        inputs = Inputs(ids, ids, ids > 0, None)
        run = functools.partial(block, model, execution, "full")
        return jax.vjp(lambda *a: run(a[0], jnp.zeros(4), a[1], a[2], inputs, None, None)[:2], w, stream, state)[1]

    found = [x for x in jax.tree.leaves(jax.eval_shape(residuals, w, stream, state)) if T in x.shape]
    twice = 2 * (3 * 64 + model.num_query_heads * model.head_dim)
    assert sum(x.size * x.dtype.itemsize for x in found) / T - twice == pytest.approx(
        pm.residuals(setup(model)), rel=0.03
    )


def test_the_lookups_gradient_is_whole_where_fsdp_shares_the_rows():
    assert pm.lookup(setup(sizes={"fsdp": 4})) == pm.lookup(setup(sizes={"data": 4})) == ()
    (item,) = pm.lookup(setup(sizes={"fsdp": 2, "data": 2}))
    assert item.bytes == 29 * 16 * 4


def test_expert_ranks_multiply_the_rows_that_a_device_must_have_room_for():
    dense = setup(sizes={"expert": 4}, dispatch="dense")
    one = setup(sizes={"expert": 4})
    extra = 3 * 2 * (16 + 8)  # three ranks more, input and hidden layer in bfloat16
    assert pm.residuals(dense) - pm.residuals(one) == extra
    (buffers,) = pm.dispatch(dense)
    assert buffers.bytes == dense.local_tokens * 4 * (16 * (2 * 4 + 2) + 3 * 8 * 2)
    assert pm.dispatch(one) == ()
    assert pm.layer_weights(dense).bytes == 4 * 3 * 8 * 16


def test_keys_of_whole_rows_are_gathered_over_context():
    s = setup(sizes={"context": 2})
    (keys,) = pm.gathered_keys(s)
    assert keys.bytes == 2 * (8 * 12) * 2 * 8 * (2 + 4)


def test_muons_matrices_are_whole_and_shared_out():
    s = Setup(MODEL, 8, 12, Sizes(fsdp=2), devices_per_node=2)
    shapes = {w.slot.path: pm.whole_matrices(s, w) for w in trained(s) if w.matrix}
    assert shapes["params/layers/experts/gate_up"] == [1, 4, 16, 16]
    assert shapes["params/layers/attention/o_proj"] == [1, 16, 16]
    assert shapes["params/layers/router/fc1_weight"] == [1, 8, 8]


@pytest.mark.parametrize("case", MI300X, ids=str)
def test_against_the_training_steps_of_mi300x_json(root, case):
    found = json.loads((root / "docs" / "mi300x.json").read_text(encoding="utf-8"))[case]
    memory = pm.memory(compiled_setup(MI300X[case]))
    assert sum(item.bytes for item in memory.state) == pytest.approx(found["argument"], rel=1e-3)
    assert memory.peak == pytest.approx(found["peak"], rel=0.03)


def test_against_all_compiled_training_steps(root):
    cases = compiled(root / "docs")
    assert len(cases) > 20
    for case, found in cases:
        memory = pm.memory(compiled_setup(case))
        assert sum(item.bytes for item in memory.state) == pytest.approx(found["argument"], rel=1e-3), case
        assert memory.peak == pytest.approx(found["peak"], rel=0.1), case


def state_on(model, optimizer: str, **sizes) -> list[float]:
    config, devices = OptimizerConfig(name=optimizer), math.prod(sizes.values())
    s = Setup(model, 2048, 4096, Sizes(**sizes), optimizer=config, devices_per_node=devices)
    table = tuple(trained(s))
    return [item.bytes for item in (pm.parameters(s, table), pm.memories(s, table), pm.gradients(s, table))]


@pytest.mark.parametrize(("axis", "largest"), [("data", 8), ("fsdp", 256), ("expert", 16), ("context", 8)])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_more_devices_never_need_more_of_the_state_while_they_divide(axis, largest, optimizer):
    sizes = [2**n for n in range(largest.bit_length())]
    found = [state_on(PRESETS["zaya1_8b"](), optimizer, **{axis: size}) for size in sizes]
    assert all(after <= before for a, b in itertools.pairwise(found) for before, after in zip(a, b))
    assert state_on(PRESETS["zaya1_8b"](), optimizer, data=2, fsdp=4) <= found[0]


def test_devices_that_divide_neither_layers_nor_experts_hold_muons_memories_whole():
    """8 of them divide the 40 layers, 16 the experts, 32 neither: more devices then need more."""
    _, eight, _ = state_on(PRESETS["zaya1_8b"](), "muon", data=8)
    _, sixteen, _ = state_on(PRESETS["zaya1_8b"](), "muon", data=16)
    _, one, _ = state_on(PRESETS["zaya1_8b"](), "muon", data=1)
    _, many, _ = state_on(PRESETS["zaya1_8b"](), "muon", data=32)
    assert sixteen < eight < 0.2 * one
    assert many > 0.85 * one
