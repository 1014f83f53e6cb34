"""Adapters applied are adapters merged: function, routes and gradients, against merging done by numpy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from kernels_pallas.aot import lowered
from kernels_pallas.grouped_matmul import grouped_matmul
from tests.model.adapters import random_adapters
from tests.model.helpers import (
    ALTERNATING,
    EXACT,
    FULL,
    assert_close,
    compiled,
    lay_out,
    quick_jit,
    random_variables,
    small,
)
from zaya_jax.errors import UserError
from zaya_jax.model import Execution, Zaya
from zaya_jax.model.layers import dense
from zaya_jax.model.layout import unstack
from zaya_jax.model.lora import (
    Adapted,
    LoraConfig,
    abstract_lora,
    adapt,
    build_lora,
    count_lora,
    init_lora,
    lora_slots,
    merge,
    product,
)
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.model.weights import weights

CONFIG = small((FULL, FULL))
PERIODIC = small(ALTERNATING)
LORA = LoraConfig(rank=3, alpha=4.5)  # scale 1.5
BATCH = lay_out(CONFIG, [[7, -2, 5], [-3, 11]])
ROOMS = ("attention", "router", "experts")


def each_pair(adapters):
    """(keys of the weight, a, b) of every adapter."""
    leaves = {
        tuple(key.key for key in path): np.asarray(leaf, np.float64)
        for path, leaf in jax.tree_util.tree_leaves_with_path(adapters)
    }
    return [(path[:-1], leaves[path], leaves[(*path[:-1], "b")]) for path in leaves if path[-1] == "a"]


def at(tree, keys):
    return functools.reduce(lambda below, key: below[key], keys, tree)


def merged_by_numpy(params, adapters, scale):
    """base + scale * b a, one matrix after the other."""
    params = jax.tree.map(lambda leaf: np.array(leaf, np.float64), params)
    for keys, a, b in each_pair(adapters):
        base = at(params, keys)
        for index in np.ndindex(base.shape[:-2]):
            base[index] += scale * b[index] @ a[index]
    return jax.tree.map(jnp.asarray, params)


def loss(config, execution, params, balance):
    out = Zaya(config, execution).apply({"params": params, "balance": balance}, *BATCH)
    weight = np.random.RandomState(5).standard_normal(out.logits.shape)
    return jnp.sum(jnp.tanh(out.logits) * weight * BATCH.real[..., None]), out


@functools.cache
def plain():
    """Outputs of the merged model, and its gradient with respect to its plain parameters."""
    variables = random_variables(CONFIG)
    params = merged_by_numpy(variables["params"], random_adapters(CONFIG, LORA, "float64"), LORA.scale)
    slope = quick_jit(jax.value_and_grad(functools.partial(loss, CONFIG, EXACT), has_aux=True))
    (_, out), gradient = slope(params, variables["balance"])
    return out, jax.tree.map(np.asarray, gradient)


def applied(**changes):
    """Outputs with adapters applied, and the gradient with respect to them."""
    execution, variables = dataclasses.replace(EXACT, **changes), random_variables(CONFIG)

    def run(adapters):
        params = adapt(variables["params"], adapters, LORA)
        tree = {"params": params, "balance": variables["balance"]}
        if execution.layout == "unstacked":
            tree = unstack(CONFIG, tree)
        return loss(CONFIG, execution, tree["params"], tree["balance"])

    adapters = random_adapters(CONFIG, LORA, "float64")
    (_, out), gradient = quick_jit(jax.value_and_grad(run, has_aux=True))(adapters)
    return out, gradient


# Draws run operation by operation would be a program each.
fresh = quick_jit(init_lora, static_argnums=(0, 1, 3))

INTERPRET = dict.fromkeys(("attention", "cca", "experts"), "interpret")


@pytest.mark.parametrize(
    "changes",
    [{}, INTERPRET | {"remat": "block"}, pytest.param({"layout": "unstacked"}, marks=pytest.mark.slow)],
    ids=["xla", "interpret", "unstacked"],
)
def test_applied_equals_merged(changes, x64):
    """Logits and routes; the gradients are those of the merged matrices, by the chain rule through b a."""
    (out, gradient), (expected, of_weights) = applied(**changes), plain()
    np.testing.assert_array_equal(out.routes_LBT, expected.routes_LBT)
    assert_close(out.logits, expected.logits)
    for keys, a, b in each_pair(random_adapters(CONFIG, LORA, "float64")):
        g, found = at(of_weights, keys), at(gradient, keys)
        wanted = {"a": LORA.scale * np.swapaxes(b, -1, -2) @ g, "b": LORA.scale * g @ np.swapaxes(a, -1, -2)}
        assert_close(found, wanted, 1e-10, "/".join(keys))


def test_the_adapters_of_this_file_matter(x64):
    """Else the comparison above would hold for a model that ignores them."""
    base = compiled(CONFIG)(random_variables(CONFIG), *BATCH)
    assert np.abs(base.logits - plain()[0].logits).max() > 0.1
    assert np.any(base.routes_LBT != plain()[0].routes_LBT)


@pytest.mark.parametrize("config", [CONFIG, PERIODIC], ids=["period 1", "period 2"])
def test_merge_is_what_numpy_says(config, x64):
    params, adapters = random_variables(config)["params"], random_adapters(config, LORA, "float64")
    assert_close(merge(config, params, adapters, LORA), merged_by_numpy(params, adapters, LORA.scale), 1e-14)


def test_merge_adds_in_float32_and_keeps_the_type_of_the_base():
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_variables(CONFIG, Execution())["params"])
    adapters = random_adapters(CONFIG, LORA, jnp.bfloat16)
    exact = merged_by_numpy(rounded, adapters, LORA.scale)
    for found, wanted in zip(jax.tree.leaves(merge(CONFIG, rounded, adapters, LORA)), jax.tree.leaves(exact)):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(np.float32), wanted, rtol=2**-8, atol=1e-6)  # rounded once


def test_merge_refuses_adapters_of_another_configuration():
    params, adapters = random_variables(CONFIG, Execution())["params"], random_adapters(CONFIG, LORA, "float32")
    for other in (LoraConfig(2), LoraConfig(3, targets=("attention",))):
        with pytest.raises(ValueError, match="not those of this model"):
            merge(CONFIG, params, adapters, other)


def both_ways(dtype, base="float32"):
    """Logits of real tokens with adapters merged, and applied, under a policy; float32 adapters."""
    variables, adapters = random_variables(CONFIG, Execution()), random_adapters(CONFIG, LORA, "float32")
    params = jax.tree.map(lambda x: x.astype(base), variables["params"])

    def call(way):
        return Zaya(CONFIG, Execution(dtype)).apply({**variables, "params": way}, *BATCH).logits

    ways = merge(CONFIG, params, adapters, LORA), adapt(params, adapters, LORA)
    return [np.asarray(quick_jit(call)(way), np.float64)[BATCH.real] for way in ways]


def test_float32_is_within_its_noise(x64):
    merged, applied = both_ways("float32")
    exact = np.asarray(plain()[0].logits)[BATCH.real]
    noise = np.abs(merged - exact).max()
    assert 0 < noise < 1e-4
    assert np.abs(applied - exact).max() <= 4 * noise


def test_bfloat16_is_the_same_model():
    """Rounded at other places. The base may be stored in bfloat16, beside adapters in float32."""
    merged, applied = both_ways("bfloat16", base="bfloat16")
    p, q = (np.exp(x - x.max(-1, keepdims=True)) for x in (merged, applied))
    p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
    kl = (p * np.log(p / q)).sum(-1)
    assert np.isfinite(applied).all() and np.median(kl) < 2e-3
    assert np.corrcoef(merged.ravel(), applied.ravel())[0, 1] > 0.999


def test_fresh_adapters_are_the_base(x64):
    """Of whole programs the float64 numbers; XLA joins their operations differently, so that no bits are promised."""
    variables, adapters = random_variables(CONFIG), fresh(CONFIG, LORA, jax.random.key(0), "float64")
    expected = compiled(CONFIG)(variables, *BATCH)
    out = compiled(CONFIG)({**variables, "params": adapt(variables["params"], adapters, LORA)}, *BATCH)
    np.testing.assert_array_equal(out.routes_LBT, expected.routes_LBT)
    assert_close(out.logits, expected.logits, 1e-13)


@pytest.mark.parametrize("platform", ["rocm", "cuda"])
def test_a_pair_of_small_rank_is_a_kernel_of_its_own(platform):
    """Base, a and b; forward and backward of the rows and of the pair. A rank below the tiles' least is masked."""
    E, M, D, F, rank = 4, 64, 32, 48, 4

    def run(pair, x, base, sizes):
        def multiply(x, w):
            return grouped_matmul(x, w, sizes, preferred_element_type=jnp.float32, implementation="pallas")

        def total(pair, x):
            return product(multiply, x, Adapted(base, *pair, 2.0)).sum()

        return jax.grad(total, (0, 1))(pair, x)

    shapes = {"a": (E, rank, D), "b": (E, F, rank), "x": (M, D), "base": (E, F, D)}
    a, b, x, base = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes.values())
    kernels = lowered((run, ((a, b), x, base, jax.ShapeDtypeStruct((E,), jnp.int32))), platform)
    assert len(kernels) == 1 + 3 + 2  # forward only the row between; then each lhs, and both small matrices


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_product_with_a_fresh_adapter_has_the_bits_of_the_base(dtype):
    random = np.random.default_rng(3)
    x, w, a = (jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in ((5, 32), (24, 32), (3, 32)))
    adapted = Adapted(w, a, jnp.zeros((24, 3)), 2.0)
    np.testing.assert_array_equal(dense(Execution(dtype), x, adapted), dense(Execution(dtype), x, w))


def test_no_gradient_passes_into_the_base(x64):
    variables, adapters = random_variables(CONFIG), random_adapters(CONFIG, LORA, "float64")

    def total(params):
        return loss(CONFIG, EXACT, adapt(params, adapters, LORA), variables["balance"])[0]

    assert not any(np.any(leaf) for leaf in jax.tree.leaves(quick_jit(jax.grad(total))(variables["params"])))


def test_some_matrices_alone_and_layers_of_two_types(x64):
    lora = LoraConfig(3, 4.5, ("experts/down", "router/fc1_weight"))
    variables, adapters = random_variables(PERIODIC), random_adapters(PERIODIC, lora, "float64")
    ways = merged_by_numpy(variables["params"], adapters, lora.scale), adapt(variables["params"], adapters, lora)
    merged, applied = (compiled(PERIODIC)({**variables, "params": way}, *BATCH).logits for way in ways)
    assert_close(applied, merged)


def test_the_table_has_every_matrix_and_nothing_else():
    matrices = {path: w for path, w in weights(CONFIG).items() if w.update == "muon"}
    table = lora_slots(CONFIG, LORA)
    assert set(table) == set(matrices)
    for path, (a, b) in table.items():
        *lead, out_size, in_size = matrices[path].shape
        assert (a.shape, b.shape) == ((*lead, 3, in_size), (*lead, out_size, 3))
        assert {a.update, b.update} == {"adamw"}
    assert table["params/layers/router/fc1_weight"].a.native == (
        "base_model.model.model.layers.{layer}.mlp.gate.router_mlp.fc1.lora_A.weight"
    )


@pytest.mark.parametrize("target", [*ROOMS, "attention/q_proj", "experts/gate_up"])
def test_a_target_is_a_room_or_a_matrix(target):
    paths = list(lora_slots(CONFIG, LoraConfig(targets=[target])))
    assert paths and all(path.startswith(f"params/layers/{target}") for path in paths)
    assert len(paths) == {"attention": 5, "router": 4, "experts": 2}.get(target, 1)


def test_count_is_by_hand():
    c, q = CONFIG, CONFIG.num_query_heads * CONFIG.head_dim
    assert count_lora(c, LoraConfig(5, targets=("attention/q_proj",))) == c.num_layers * 5 * (c.hidden_size + q)
    down = c.num_experts * 5 * (c.hidden_size + c.expert_hidden_size)
    assert count_lora(c, LoraConfig(5, targets=("experts/down",))) == c.num_layers * down


def test_fresh_adapters_are_drawn_by_path_layer_and_expert():
    adapters = fresh(PERIODIC, LORA, jax.random.key(1), "float32")
    for keys, a, b in each_pair(adapters):
        assert not b.any()
        rows = a.reshape(-1, *a.shape[-2:])
        assert all(not np.array_equal(x, y) for i, x in enumerate(rows) for y in rows[:i]), keys
    wide = small(ALTERNATING, hidden_size=512)
    a = fresh(wide, LORA, jax.random.key(1), "float32")["layers"]["block_0"]["experts"]["gate_up"]["a"]
    assert float(a.std()) == pytest.approx(512**-0.5, rel=0.05)
    narrow = fresh(
        PERIODIC, LoraConfig(3, targets=("router",)), jax.random.key(1), "float32"
    )  # whatever else is adapted
    assert_close(narrow["layers"]["block_1"]["router"], adapters["layers"]["block_1"]["router"], 0)
    assert_close(abstract_shapes(adapters), abstract_shapes(abstract_lora(PERIODIC, LORA)), 0)


def abstract_shapes(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf.shape), tree)


def test_adapters_lie_as_their_weights_do():
    mesh = jax.sharding.AbstractMesh((1, 8, 4, 1), ("data", "fsdp", "expert", "context"))
    place = build_lora(CONFIG, LORA, slot_sharding(mesh))["layers"]["block_0"]
    specs = {
        ("attention", "q_proj"): (P(None, None, "fsdp"), P(None, None, None)),
        ("attention", "o_proj"): (P(None, None, None), P(None, "fsdp", None)),
        ("experts", "gate_up"): (P(None, "expert", None, "fsdp"), P(None, "expert", None, None)),
    }
    for (room, name), (a, b) in specs.items():
        assert (place[room][name]["a"].spec, place[room][name]["b"].spec) == (a, b)


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("atention", "did you mean attention?"),
        ("q_proj", "did you mean attention/q_proj?"),
        ("attention/qproj", "did you mean attention/q_proj?"),
        ("attention/norm", "attention, router, experts"),
        ("embedding", "attention, router, experts"),
        ("", "attention, router, experts"),
        ("zzz", "such as attention/q_proj"),
    ],
)
def test_a_target_that_is_none_is_one_clear_line(target, hint):
    with pytest.raises(UserError) as caught:
        init_lora(CONFIG, LoraConfig(targets=("experts", target)), jax.random.key(0))
    assert hint in str(caught.value) and repr(target) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [{"rank": 0}, {"alpha": 0.0}, {"alpha": float("nan")}, {"targets": ()}])
def test_a_configuration_without_sense_is_refused(values):
    with pytest.raises(UserError, match=f"LoraConfig.{next(iter(values))}"):
        LoraConfig(**values)


def handed_out(jaxpr):
    """Shapes of all that the scans of a program hand out."""
    shapes = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            shapes |= {out.aval.shape for out in equation.outvars}
        inner = (getattr(value, "jaxpr", None) for value in equation.params.values())
        shapes |= set().union(*(handed_out(each) for each in inner if each is not None))
    return shapes


def test_the_backward_pass_has_no_room_for_the_base():
    """Neither a gradient of a base nor a copy of it for the backward pass leaves the scan over the layers."""
    variables, adapters = random_variables(CONFIG, Execution()), abstract_lora(CONFIG, LORA)

    def total(adapters, params):
        params = params if adapters is None else adapt(params, adapters, LORA)
        return loss(CONFIG, Execution(), params, variables["balance"])[0]

    bases = {at(variables["params"], keys).shape for keys in map(tuple, base_keys())}
    frozen = jax.make_jaxpr(jax.grad(total))(adapters, variables["params"])
    trained = jax.make_jaxpr(jax.grad(total, argnums=1))(None, variables["params"])
    assert handed_out(frozen.jaxpr) & bases == set()
    assert handed_out(trained.jaxpr) & bases == bases


def base_keys():
    return [keys for keys, *_ in each_pair(random_adapters(CONFIG, LORA, "float32"))]
