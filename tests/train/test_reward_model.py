"""A reward model: the loss in float64 and by hand, scores of packed rows, and what a small one learns."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.model.helpers import EXACT, quick_jit, random_variables
from tests.train.models import random_batch, tiny
from zaya_jax.data.batch import Batch
from zaya_jax.data.dataset import pack
from zaya_jax.data.encoding import Encoded
from zaya_jax.model import Execution, Zaya
from zaya_jax.train.objective import objective
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.reward_files import score
from zaya_jax.train.reward_model import (
    BACKBONE,
    HEAD,
    BradleyTerryConfig,
    bradley_terry_loss,
    head_optimizer,
    segment_scores,
    with_head,
)
from zaya_jax.train.sharding import abstract_state
from zaya_jax.train.step import init_state, start_from, train_step
from zaya_jax.train.trainer import Trainer

RANDOM = np.random.default_rng(0)
CHOSEN, REJECTED = 4 * RANDOM.standard_normal((2, 7))
PLAIN = BradleyTerryConfig(centring=0.0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loss(chosen, rejected, config, real=None):
    return bradley_terry_loss(jnp.asarray(chosen), jnp.asarray(rejected), config, real)


def test_by_hand():
    """Two pairs, 1 apart and 3 apart the wrong way: log(1 + 1/e) and log(1 + e^3)."""
    found, told = loss([2.0, -1.0], [1.0, 2.0], PLAIN)
    assert float(found) == pytest.approx((0.31326169 + 3.04858735) / 2, rel=1e-6)
    assert (float(told.accuracy), float(told.margin), int(told.pairs)) == (0.5, -1.0, 2)
    assert (float(told.chosen_reward), float(told.rejected_reward)) == (0.5, 1.5)


@pytest.mark.parametrize("margin", [0.0, 1.5])
@pytest.mark.parametrize("centring", [0.0, 0.03])
def test_loss_and_gradient_are_those_of_numpy(margin, centring, x64):
    config = BradleyTerryConfig(margin, centring)
    chance = sigmoid(CHOSEN - REJECTED - margin)
    expected = (-np.log(chance) + centring * (CHOSEN + REJECTED) ** 2).mean()
    assert float(loss(CHOSEN, REJECTED, config)[0]) == pytest.approx(expected, rel=1e-12)
    gradient = jax.grad(lambda *pair: loss(*pair, config)[0], (0, 1))(jnp.asarray(CHOSEN), jnp.asarray(REJECTED))
    pull, centre = (1 - chance) / len(chance), 2 * centring * (CHOSEN + REJECTED) / len(chance)
    np.testing.assert_allclose(gradient, [centre - pull, centre + pull], rtol=1e-10)


def test_equal_scores_cost_log_2_and_win_nothing():
    found, told = loss(CHOSEN, CHOSEN, PLAIN)
    assert float(found) == pytest.approx(np.log(2), rel=1e-6) and float(told.accuracy) == 0
    with_margin, _ = loss(CHOSEN, CHOSEN, BradleyTerryConfig(1.0, 0.0))
    assert float(with_margin) == pytest.approx(np.log(1 + np.e), rel=1e-6)


def test_a_shift_of_all_scores_costs_nothing_without_centring(x64):
    plain = [float(loss(CHOSEN + shift, REJECTED + shift, PLAIN)[0]) for shift in (0, 5)]
    assert plain[0] == pytest.approx(plain[1], rel=1e-12)
    centred = [float(loss(CHOSEN + shift, REJECTED + shift, BradleyTerryConfig(0.0, 0.1))[0]) for shift in (0, 5)]
    total = CHOSEN + REJECTED
    assert centred[1] - centred[0] == pytest.approx(0.1 * ((total + 10) ** 2 - total**2).mean(), rel=1e-10)


def test_scores_of_thousands_neither_overflow_nor_lose_their_gradient():
    value, gradient = jax.value_and_grad(lambda x: loss(x, jnp.zeros(2), PLAIN)[0])(jnp.array([-3e4, 3e4]))
    assert float(value) == 1.5e4
    np.testing.assert_array_equal(gradient, [-0.5, 0])


def test_pairs_that_are_not_real_neither_count_nor_have_a_gradient():
    real = np.array([True, False, True, False, True, True, False])
    chosen = np.where(real, CHOSEN, np.nan)
    config = BradleyTerryConfig(0.5, 0.1)
    expected, _ = loss(CHOSEN[real], REJECTED[real], config)
    found, told = loss(chosen, REJECTED, config, jnp.asarray(real))
    assert float(found) == pytest.approx(float(expected), rel=1e-6) and int(told.pairs) == 4
    gradient = jax.grad(lambda x: loss(x, REJECTED, config, jnp.asarray(real))[0])(jnp.asarray(chosen))
    np.testing.assert_array_equal(np.asarray(gradient) != 0, real)
    assert float(loss(CHOSEN, REJECTED, config, jnp.zeros(7, bool))[0]) == 0


def test_a_score_is_read_at_the_last_token_of_each_segment():
    segments = np.array([[1, 1, 2, 2, 2, 0, 0], [0, 1, 2, 3, 3, 3, 3]])
    hidden, head = RANDOM.standard_normal((2, 7, 4)), RANDOM.standard_normal(4)
    found = np.asarray(segment_scores(jnp.asarray(hidden), jnp.asarray(head), jnp.asarray(segments)))
    value = hidden @ head
    expected = [[value[0, 1], value[0, 4], 0], [value[1, 1], value[1, 2], value[1, 6]]]
    assert found.shape == (2, 8) and not found[:, 3:].any()
    np.testing.assert_allclose(found[:, :3], expected, rtol=1e-5)


def conversations(count, low, high, vocabulary=29):
    return [RANDOM.integers(1, vocabulary, RANDOM.integers(low, high)) for _ in range(count)]


def in_rows(tokens, rows, length):
    """Right-padded rows of one conversation each."""
    both = np.zeros((2, rows, length), np.int32)
    for row, ids in enumerate(tokens):
        both[0, row, : len(ids)], both[1, row, : len(ids)] = ids, 1
    return both


def test_packed_scores_are_those_of_rows_alone(x64):
    """Four conversations in one row, the same in rows padded on the right, and on the left."""
    config, texts = tiny(), conversations(4, 3, 9)
    variables = random_variables(config, EXACT)
    head = jnp.asarray(RANDOM.standard_normal(config.hidden_size))
    row = np.concatenate([*texts, np.zeros(3, int)]).astype(np.int32)[None]
    number = np.repeat([1, 2, 3, 4, 0], [*map(len, texts), 3])[None]
    position = np.concatenate([*(np.arange(len(ids)) for ids in texts), np.zeros(3, int)])[None]
    model = Zaya(config, EXACT)
    hidden = quick_jit(lambda v, *x: model.apply(v, *x, logits="none").hidden_BTD)(variables, row, position, number)
    packed = np.asarray(segment_scores(hidden, head, jnp.asarray(number)))[0, :4]
    alone = quick_jit(score.__wrapped__, static_argnums=0)
    right = in_rows(texts, 4, 10)
    left = np.array([[np.roll(ids, 10 - len(text)) for ids, text in zip(side, texts)] for side in right])
    for rows in (right, left):
        np.testing.assert_allclose(alone(model, variables, head, *rows), packed, rtol=1e-10, atol=1e-10)


TINY = tiny()


def trainer(config=PLAIN, **changes):
    values = {"balance_rate": 0.0, "optimizer": OptimizerConfig(weight_decay=0.0)} | changes
    return Trainer(TINY, Execution(), reward=config, **values)


def paired(batch: Batch) -> Batch:
    """Two conversations of six tokens a row: a prompt of two tokens, the rest the answer."""
    index = np.broadcast_to(np.arange(12, dtype=np.int32), batch.tokens_BT.shape)
    mask = ((index % 6 >= 2) & (index % 6 < 5)).astype(np.float32)
    return batch._replace(mask_BT=mask, positions_BT=index % 6, segments_BT=1 + index // 6)


def test_the_first_step_of_a_fresh_head_costs_log_2_and_moves_the_head_alone():
    base, made = random_variables(TINY, Execution()), trainer()
    state = quick_jit(start_from, static_argnums=0)(made, base, jax.random.key(0))
    assert set(state.params) == {BACKBONE, HEAD} and not state.params[HEAD].any()
    state, metrics = quick_jit(train_step, static_argnums=0)(made, state, paired(random_batch(TINY, 4)), 1e-2)
    assert float(metrics.loss) == pytest.approx(np.log(2), rel=1e-6) and int(metrics.preference.pairs) == 4
    assert np.asarray(state.params[HEAD]).all()
    for before, after in zip(jax.tree.leaves(base["params"]), jax.tree.leaves(state.params[BACKBONE]), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_gradient_of_backbone_and_head_is_clipped_as_one():
    """By a plain rate of 1 and no memory: the update is the gradient, of the norm that clipping leaves."""
    params = with_head(random_variables(TINY, Execution())["params"], TINY, "float32")
    gradient = jax.tree.map(lambda x: jnp.full_like(x, 2.0), params)
    config = OptimizerConfig(clip=0.5, b1=0.0, b2=0.0, epsilon=1.0, weight_decay=0.0)
    made = head_optimizer(config, TINY)
    updates, _ = quick_jit(lambda g, p: made.update(g, made.init(p), p))(gradient, params)
    clipped = 0.5 / float(optax.tree.norm(gradient)) * 2.0
    for part in jax.tree.leaves(updates):
        np.testing.assert_allclose(part, -clipped / (clipped + 1.0), rtol=1e-4)


def shorter_preferred(count, seed):
    """Rows of one pair: a prompt of 3 tokens, two replies of 2 to 12 of which the shorter one is chosen."""
    random, rows = np.random.default_rng(seed), []
    for _ in range(count):
        prompt, (short, long) = random.integers(1, 20, 3), np.sort(random.choice(np.arange(2, 13), 2, replace=False))
        sides = [np.concatenate([prompt, random.integers(1, 20, n), [21]]) for n in (short, long)]
        weights = [np.arange(len(side)) >= 3 for side in sides]
        example = Encoded(
            np.concatenate(sides).astype(np.int32), np.concatenate(weights).astype(np.float32), len(sides[0])
        )
        rows.append(pack([example], 36, 0))
    return Batch(*(np.stack([getattr(row, f"{name[:-3]}_T") for row in rows]) for name in Batch._fields))


def accuracy(made, state, batch):
    """Of held-out pairs, and what is told of them beside."""
    compute = quick_jit(objective, static_argnums=0)
    told = jax.device_get(compute(made, state.params, state.balance, None, batch).preference)
    return told.accuracy / told.pairs, told.scaled(1 / told.pairs)


def test_a_small_model_learns_that_the_shorter_reply_is_preferred():
    made = trainer(BradleyTerryConfig(centring=0.01))
    held_out = shorter_preferred(256, 10**6)
    state = quick_jit(init_state, static_argnums=0)(made, jax.random.key(0))
    step = quick_jit(train_step, static_argnums=0, donate_argnums=1)
    assert accuracy(made, state, held_out)[0] == 0  # all scores are 0: nothing is won
    for number in range(120):
        state, metrics = step(made, state, shorter_preferred(16, number), 1e-2)
    right, told = accuracy(made, state, held_out)
    assert right > 0.9 and told.margin > 2 and metrics.applied
    assert abs(float(told.chosen_reward + told.rejected_reward)) < 1.5  # centred


@pytest.mark.slow
def test_muon_trains_the_backbone_too():
    made = trainer(BradleyTerryConfig(centring=0.01), optimizer=OptimizerConfig("muon", weight_decay=0.0))
    state = quick_jit(init_state, static_argnums=0)(made, jax.random.key(0))
    step = quick_jit(train_step, static_argnums=0, donate_argnums=1)
    for number in range(120):
        state, _ = step(made, state, shorter_preferred(16, number), 1e-2)
    assert accuracy(made, state, shorter_preferred(256, 10**6))[0] > 0.9


def test_on_a_mesh_the_backbone_lies_as_a_language_models_and_the_head_everywhere():
    names = ("data", "fsdp", "expert", "context")
    mesh = jax.sharding.AbstractMesh((2, 2, 1, 1), names)
    made, plain = trainer(), Trainer(TINY, Execution(), OptimizerConfig(weight_decay=0.0), balance_rate=0.0)

    def places(some):
        state = abstract_state(some, mesh)
        named = {"params": state.params, "optimizer": state.optimizer, "balance": state.balance}
        return {jax.tree_util.keystr(path): x.sharding.spec for path, x in jax.tree_util.tree_leaves_with_path(named)}

    found, expected = places(made), places(plain)
    heads = {path: spec for path, spec in found.items() if HEAD in path}
    assert len(heads) == 4  # it, and Adam's two memories and counter
    assert set(heads.values()) == {jax.sharding.PartitionSpec()}
    backbone = {
        path.replace(f"['{BACKBONE}']", ""): spec for path, spec in found.items() if path.startswith("['params']")
    }
    for path, spec in expected.items():
        if path.startswith("['params']"):
            assert backbone[path] == spec
    memories = [sorted(str(s) for p, s in some.items() if ".mu" in p and HEAD not in p) for some in (found, expected)]
    assert memories[0] == memories[1] and len(set(memories[0])) > 1


MESH = """
import dataclasses, jax, numpy as np
from tests.model.helpers import quick_jit
from tests.train.models import tiny
from tests.train.test_reward_model import shorter_preferred
from zaya_jax.model import Execution
from zaya_jax.parallel import make_mesh
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.reward_model import BradleyTerryConfig
from zaya_jax.train.sharding import abstract_state
from zaya_jax.train.step import init_state, train_step
from zaya_jax.train.trainer import Trainer

batch = shorter_preferred(8, 0)
plain = Trainer(tiny(num_experts=4), Execution("float64"), OptimizerConfig("muon"), reward=BradleyTerryConfig(0.1))

def two_steps(trainer, state):
    step, losses = quick_jit(train_step, static_argnums=0), []
    for _ in range(2):
        state, metrics = step(trainer, state, batch, 1e-2)
        losses.append(metrics.loss)
    return jax.device_get((losses, metrics.preference, state.params))

expected = two_steps(plain, init_state(plain, jax.random.key(0)))
mesh = make_mesh(data=2, expert=2, context=2)
trainer = dataclasses.replace(plain, execution=Execution("float64", mesh=mesh))
places = jax.tree.map(lambda x: x.sharding, abstract_state(trainer, mesh))
found = two_steps(trainer, jax.device_put(init_state(plain, jax.random.key(0)), places))
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10), found, expected)
print("fine")
"""


@pytest.mark.slow
def test_a_step_on_eight_devices_is_the_step_of_one(root):
    more = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_ENABLE_X64": "1", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", MESH], env=os.environ | more, capture_output=True, text=True, cwd=root)
    assert done.stdout.strip().endswith("fine"), done.stderr[-3000:]
