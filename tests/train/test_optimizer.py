"""Optimizers: who trains what, the schedule's closed form, decay, and what Muon does to a matrix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.model.helpers import quick_jit, random_tensors, random_variables, to_variables
from tests.train.models import tiny
from zaya_jax.errors import UserError
from zaya_jax.model import Execution
from zaya_jax.model.layout import unstack
from zaya_jax.train.optimizer import OptimizerConfig, is_matrix, optimizer

MATRICES = {
    *("q_proj", "k_proj", "v_current", "v_delayed", "o_proj"),
    *("down_weight", "fc1_weight", "fc2_weight", "out_weight", "gate_up", "down"),
}
CONFIG = tiny()
LABELS = is_matrix(CONFIG, "stacked")
NAMES, LAYOUTS = ("adamw", "muon"), ("stacked", "unstacked")


def leaf_names(tree):
    """Each leaf's last dictionary key."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return [[key.key for key in path if isinstance(key, jax.tree_util.DictKey)][-1] for path in paths]


@functools.cache
def params(layout):
    return to_variables(CONFIG, layout, random_tensors(CONFIG, 0))["params"]


@functools.cache
def gradients(layout):
    """The same numbers in both layouts; the phantom of layer 0 has none."""
    return to_variables(CONFIG, layout, random_tensors(CONFIG, 1))["params"]


@functools.cache
def first_step(name, layout, decay, zero=False):
    """The first update, and the optimizer's state after it."""
    update = optimizer(OptimizerConfig(name, weight_decay=decay, clip=0.5), CONFIG, layout)
    given = jax.tree.map(jnp.zeros_like, gradients(layout)) if zero else gradients(layout)
    return quick_jit(lambda g, w: update.update(g, update.init(w), w))(given, params(layout))


def updates(*args, **kwargs):
    return first_step(*args, **kwargs)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_are_the_matrices(layout):
    tree = is_matrix(tiny(), layout)
    assert {name for name, yes in zip(leaf_names(tree), jax.tree.leaves(tree)) if yes} == MATRICES
    assert not MATRICES & {name for name, yes in zip(leaf_names(tree), jax.tree.leaves(tree)) if not yes}


@pytest.mark.parametrize("name", NAMES)
def test_only_matrices_decay(name):
    weights, pushed = params("stacked"), updates(name, "stacked", 0.25, zero=True)
    for leaf, weight, push in zip(leaf_names(weights), jax.tree.leaves(weights), jax.tree.leaves(pushed)):
        expected = -0.25 * weight if leaf in MATRICES else jnp.zeros_like(weight)
        np.testing.assert_allclose(push, expected, rtol=1e-6, atol=1e-12, err_msg=leaf)


def test_first_adamw_update_is_the_sign_of_the_gradient():
    pushed = updates("adamw", "stacked", 0.0)
    for push, gradient in zip(jax.tree.leaves(pushed), jax.tree.leaves(gradients("stacked"))):
        large = np.abs(gradient) > 0.01  # epsilon is nothing next to it
        np.testing.assert_allclose(push[large], -np.sign(gradient[large]), atol=1e-3)


def test_muon_update_of_every_matrix_is_nearly_orthogonal_with_rms_a_fifth():
    pushed = updates("muon", "stacked", 0.0)
    for name, push in zip(leaf_names(pushed), jax.tree.leaves(pushed)):
        if name in MATRICES:
            parts = 2 if name == "gate_up" else 1
            push = np.asarray(push).reshape(*push.shape[:-2], parts, -1, push.shape[-1])
            singular = np.linalg.svd(push, compute_uv=False)  # of each layer and expert
            relative = singular / (0.2 * np.sqrt(max(push.shape[-2:])))
            # Five iterations bring all but the smallest singular values near 1.
            assert 0.65 < np.median(relative, axis=-1).min() and relative.max() < 1.3, name


def test_muon_trains_the_rest_with_adamw():
    push, gradient = (np.asarray(tree["embedding"]) for tree in (updates("muon", "stacked", 0.0), gradients("stacked")))
    large = np.abs(gradient) > 0.01
    nesterov = 1 + 0.9 / 1.9  # optax looks one step ahead: b1 (1 - b1) / (1 - b1^2) + 1
    np.testing.assert_allclose(push[large], -nesterov * np.sign(gradient[large]), rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_both_layouts_get_the_same_update(name):
    stacked = {"params": updates(name, "stacked", 0.1), "balance": random_variables(CONFIG, Execution())["balance"]}
    plain = unstack(CONFIG, stacked)["params"]
    for ours, theirs in zip(jax.tree.leaves(plain), jax.tree.leaves(updates(name, "unstacked", 0.1)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


def test_gradients_are_clipped_to_the_global_norm():
    moments = optax.tree_utils.tree_get(
        first_step("adamw", "stacked", 0.0)[1], "mu"
    )  # (1 - b1) of the clipped gradient
    assert float(optax.tree.norm(moments)) == pytest.approx(0.1 * 0.5, rel=1e-4)


def memory(config):
    """Shapes of what is remembered of the parameters."""
    state = jax.eval_shape(optimizer(config, CONFIG, "stacked").init, params("stacked"))
    return sorted(x.shape for x in jax.tree.leaves(state) if x.shape)


def test_muon_remembers_one_average_of_a_matrix_and_two_of_anything_else():
    shapes = [(x.shape, yes) for x, yes in zip(jax.tree.leaves(params("stacked")), jax.tree.leaves(LABELS))]
    matrices, rest = ([shape for shape, yes in shapes if yes is which] for which in (True, False))
    assert memory(OptimizerConfig("muon")) == sorted(matrices + 2 * rest)
    assert memory(OptimizerConfig("adamw")) == sorted(2 * matrices + 2 * rest)
    assert memory(OptimizerConfig("muon", momentum=0)) == sorted(2 * rest)


def test_an_infinite_clip_clips_nothing():
    update = optimizer(OptimizerConfig("adamw", clip=np.inf), CONFIG, "stacked")
    state = quick_jit(lambda g, w: update.update(g, update.init(w), w)[1])(gradients("stacked"), params("stacked"))
    moments = optax.tree_utils.tree_get(state, "mu")
    assert float(optax.tree.norm(moments)) == pytest.approx(
        0.1 * float(optax.tree.norm(gradients("stacked"))), rel=1e-4
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "sgd"},
        {"decay": "steps"},
        {"newton_schulz_dtype": "float16"},
        {"clip": 0},
        {"momentum": 1},
        {"warmup": 1.5},
        {"warmup_steps": -1},
        {"learning_rate": float("nan")},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_impossible_values_are_users_mistakes(wrong):
    with pytest.raises(UserError, match=f"OptimizerConfig.{next(iter(wrong))}: .*{next(iter(wrong.values()))}"):
        OptimizerConfig(**wrong)
