"""What a configuration promises: sizes, names, periods, and one line for every impossible value."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from tests.model.helpers import ALTERNATING, FULL, LAYOUTS, SLIDING, assert_close, quick_jit, small, tensor_shapes
from zaya_jax.errors import UserError
from zaya_jax.model import PRESETS, Execution, Rope, Zaya
from zaya_jax.model.layout import abstract, stack, unstack
from zaya_jax.model.weights import count_active_parameters, count_parameters, is_layered, weight_copies, weights

COUNTS = {"zaya1_8b": (8_840_488_784, 1283, 2483), "zaya1_74b": (74_793_953_144, 1923, 4683)}


@pytest.mark.parametrize("name", COUNTS)
def test_released_sizes(name):
    config = PRESETS[name]()
    parameters, _, _ = COUNTS[name]
    assert count_parameters(config) == parameters
    shapes = tensor_shapes(config)
    assert sum(math.prod(shape) for n, shape in shapes.items() if "balancing" not in n) == parameters


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_trees_hold_the_released_sizes(name, layout):
    """All arrays of a layout together; the stacked one has the phantom of layer 0 on top."""
    config = PRESETS[name]()
    tree = abstract(config, layout, "bfloat16")
    phantom = config.router_hidden_size if layout == "stacked" else 0
    assert sum(math.prod(a.shape) for a in jax.tree.leaves(tree["params"])) == COUNTS[name][0] + phantom
    biases = jax.tree.leaves(tree["balance"])
    assert sum(math.prod(a.shape) for a in biases) == config.num_layers * config.num_router_classes
    assert {a.dtype for a in biases} == {np.dtype("float32")}


@pytest.mark.parametrize("name", COUNTS)
def test_names_are_those_of_the_files(name):
    config = PRESETS[name]()
    native, legacy = {}, set()
    for path, w in weights(config).items():
        layers = range(config.num_layers - weight_copies(config, w, path), config.num_layers)
        for k in layers if is_layered(path) else [0]:
            native[w.native.format(layer=k)] = w.shape
            for e in range(config.num_experts if "{expert}" in w.legacy else 1):
                legacy.add(w.legacy.format(even=2 * k, odd=2 * k + 1, next=2 * k + 2, expert=e))
    assert native == tensor_shapes(config)
    assert (len(native), len(legacy)) == COUNTS[name][1:]


def test_active_parameters():
    """Of the 8B, the report counts 0.76B active without the embedding."""
    assert 0.74e9 < count_active_parameters(PRESETS["zaya1_8b"]()) < 0.77e9


@pytest.mark.parametrize(
    "types, period",
    [((FULL,), 1), ((FULL,) * 6, 1), (ALTERNATING, 2), ((FULL, SLIDING, SLIDING), 3), ((FULL, SLIDING, FULL), 3)],
)
def test_period(types, period):
    assert small(types).period == period


WRONG = {
    "vocab_size": 0,
    "hidden_size": 2.0,
    "num_experts": True,
    "expert_hidden_size": -1,
    "router_hidden_size": None,
    "head_dim": 7,
    "max_position_embeddings": 2**40,
    "num_kv_heads": 3,
    "layer_types": ("full", "global"),
    "sliding_window": None,
    "norm_epsilon": 0,
    "skip_output": "none",
    "full_rope": Rope(1e4, 0.3),
    "sliding_rope": Rope(0.5),
}


@pytest.mark.parametrize("field", WRONG)
def test_impossible_values_are_named(field):
    with pytest.raises(UserError) as error:
        small(**{field: WRONG[field]}) if field != "layer_types" else small(WRONG[field])
    blamed = {"num_kv_heads": "num_query_heads"}.get(field, field)
    message = str(error.value)
    assert message.startswith(blamed) and "expected" in message and "found" in message and "\n" not in message


def test_a_model_needs_a_layer():
    with pytest.raises(UserError, match="layer_types"):
        small(())


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Execution)])
def test_unknown_choices_are_named(field):
    with pytest.raises(UserError, match=rf"Execution\.{field}.*found 'no such'"):
        Execution(**{field: "no such"})


def test_executions_are_equal_and_hashable():
    assert hash(Execution()) == hash(Execution(dtype="float32")) and Execution() != Execution(layout="unstacked")


def test_every_layout_draws_the_same_initial_values():
    config = small((FULL, FULL))
    tokens = np.zeros((1, 2), np.int32)
    # Run operation by operation, `init` would run the whole model beside its draws.
    drawn = {
        layout: quick_jit(Zaya(config, Execution(layout=layout)).init)(jax.random.key(3), tokens, tokens, tokens)
        for layout in LAYOUTS
    }
    assert_close(stack(config, drawn["unstacked"]), drawn["stacked"], 0.0)
    assert_close(unstack(config, drawn["stacked"]), drawn["unstacked"], 0.0)
    phantom = drawn["stacked"]["params"]["layers"]["block_0"]["router"]["state_scale"][0]
    assert (np.asarray(phantom) == 0).all()
    biases = drawn["stacked"]["balance"]["layers"]["block_0"]["router"]["biases"]
    np.testing.assert_array_equal(biases, [[0, 0, 0, 0, -1]] * 2)


def test_initial_values_depend_on_the_key_the_layer_and_the_expert():
    config = small((FULL, FULL))
    tokens = np.zeros((1, 2), np.int32)
    init = quick_jit(Zaya(config).init)
    one, two = (init(jax.random.key(seed), tokens, tokens, tokens)["params"] for seed in (0, 1))
    gate_up = np.asarray(one["layers"]["block_0"]["experts"]["gate_up"])
    assert (gate_up != np.asarray(two["layers"]["block_0"]["experts"]["gate_up"])).any()
    assert (gate_up[0] != gate_up[1]).any() and (gate_up[0, 0] != gate_up[0, 1]).any()
    np.testing.assert_allclose(gate_up.std(), 1 / math.sqrt(config.hidden_size), rtol=0.05)
    np.testing.assert_allclose(np.asarray(one["embedding"]).std(), 1 / math.sqrt(config.hidden_size), rtol=0.1)
