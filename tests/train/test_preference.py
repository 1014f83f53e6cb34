"""Preference optimization: closed forms in float64, signs of gradients, and a margin that grows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model.helpers import quick_jit, random_variables
from tests.train.models import random_batch, tiny
from zaya_jax.data.batch import Batch
from zaya_jax.data.dataset import pack
from zaya_jax.data.encoding import Encoded
from zaya_jax.errors import UserError
from zaya_jax.model import Execution
from zaya_jax.model.lora import LoraConfig
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.preference import DpoConfig, dpo_loss, preference_loss, real_pairs, sequence_logprobs, split_pairs
from zaya_jax.train.step import evaluate_step, start_from, train_step
from zaya_jax.train.trainer import Trainer

RANDOM = np.random.default_rng(0)
ANSWERS = [10 * RANDOM.standard_normal(6) for _ in range(4)]  # policy and reference, chosen and rejected


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_and_metrics_are_the_papers(smoothing, x64):
    pc, pr, rc, rr = ANSWERS
    chosen, rejected = 0.3 * (pc - rc), 0.3 * (pr - rr)
    right = sigmoid(chosen - rejected)
    expected = -(1 - smoothing) * np.log(right) - smoothing * np.log(1 - right)
    loss, told = dpo_loss(*map(jnp.asarray, ANSWERS), 0.3, smoothing)
    assert float(loss) == pytest.approx(expected.mean(), rel=1e-12)
    assert float(told.accuracy) == (chosen > rejected).mean()
    found = told.margin, told.chosen_reward, told.rejected_reward
    np.testing.assert_allclose(found, [(chosen - rejected).mean(), chosen.mean(), rejected.mean()], rtol=1e-12)


def test_a_policy_that_is_the_reference_loses_log_2():
    answers = jnp.asarray(ANSWERS[0]), jnp.asarray(ANSWERS[1])
    loss, told = dpo_loss(*answers, *answers, 0.5)
    assert float(loss) == pytest.approx(np.log(2), rel=1e-6)
    assert (float(told.margin), float(told.accuracy)) == (0, 0)


def test_gradient_is_the_papers_and_the_reference_has_none(x64):
    """-beta * sigmoid(-margin) for the chosen answer, its negative for the rejected one (section 4), over the pairs."""
    pc, pr, rc, rr = ANSWERS
    gradient = jax.grad(lambda *answers: dpo_loss(*answers, 0.3)[0], (0, 1, 2, 3))(*map(jnp.asarray, ANSWERS))
    expected = -0.3 * sigmoid(-0.3 * (pc - rc - pr + rr)) / len(pc)
    assert np.all(gradient[0] < 0) and np.all(gradient[1] > 0)
    np.testing.assert_allclose(gradient[:2], [expected, -expected], rtol=1e-10)
    assert not np.any(gradient[2:])


def test_margins_of_thousands_neither_overflow_nor_lose_their_gradient():
    far = jnp.array([-3e4, 3e4])
    zeros = jnp.zeros(2)
    loss, gradient = jax.value_and_grad(lambda pc: dpo_loss(pc, zeros, zeros, zeros, 1.0)[0])(far)
    assert float(loss) == 1.5e4
    np.testing.assert_array_equal(gradient, [-0.5, 0])


def test_pairs_that_are_not_real_do_not_count():
    some = np.array([True, False, True, True, False, True])
    expected = dpo_loss(*(jnp.asarray(x[some]) for x in ANSWERS), 0.3)
    found = dpo_loss(*map(jnp.asarray, ANSWERS), 0.3, real=jnp.asarray(some))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert float(dpo_loss(*map(jnp.asarray, ANSWERS), 0.3, real=jnp.zeros(6, bool))[0]) == 0


def test_log_probabilities_are_summed_by_segment_under_the_mask():
    nats = np.array([[1, 2, 4, 8, np.nan], [16, np.inf, 32, 64, 128.0]], np.float32)
    segments = np.array([[1, 1, 2, 2, 0], [2, 2, 2, 3, 3]])
    mask = np.array([[0, 1, 1, 1, 0], [1, 0, 0.5, 1, 0]])
    expected = [[-2, -12, 0], [0, -32, -64]]
    np.testing.assert_array_equal(sequence_logprobs(nats, mask, segments, 3), expected)


def test_neither_padding_nor_prompt_gets_a_gradient():
    batch = random_batch(tiny(), 2)
    nats = jnp.asarray(RANDOM.uniform(0, 3, batch.mask_BT.shape))
    gradient = np.asarray(jax.grad(lambda nats: preference_loss(DpoConfig(), nats, 0 * nats, batch)[0])(nats))
    np.testing.assert_array_equal(gradient != 0, batch.mask_BT != 0)
    chosen = batch.segments_BT == 1
    assert np.all(gradient[chosen] >= 0) and np.all(gradient[~chosen] <= 0)  # fewer nats for the chosen answer


def test_packed_pairs_are_the_pairs_apart():
    """Three segments and a lone fourth one in a row, against numpy; pairs that lack an answer do not count."""
    segments = np.array([[1, 1, 2, 2, 3, 4, 4, 5, 5], [1, 2, 3, 3, 4, 4, 0, 0, 0]])
    mask = np.array([[1, 1, 1, 0, 1, 1, 0, 1, 1], [1, 0, 1, 1, 0, 1, 0, 0, 0]], np.float32)
    nats, reference = RANDOM.uniform(0, 3, (2, *mask.shape))
    batch = random_batch(tiny(), 2)._replace(mask_BT=mask, segments_BT=segments)
    pairs = [(0, 1, 2), (0, 3, 4), (1, 3, 4)]  # row, chosen, rejected; segment 5 is alone, segment 2 of row 1 masked

    def answer(values, row, segment):
        return -(values * mask)[row][segments[row] == segment].sum()

    sums = [[answer(values, pair[0], pair[side]) for pair in pairs] for values in (nats, reference) for side in (1, 2)]
    expected = dpo_loss(*map(jnp.asarray, sums), 0.1)
    loss, told = preference_loss(DpoConfig(), jnp.asarray(nats), jnp.asarray(reference), batch)
    assert int(told.pairs) == 3 == int(real_pairs(batch).sum())
    for ours, theirs in zip(jax.tree.leaves((loss, told)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_rows_as_the_data_packs_them_are_pairs():
    """Two preferences of 3 + 2 and 2 + 4 tokens; a token that begins a conversation is never predicted."""
    lengths = [(3, 2), (2, 4)]
    examples = [Encoded(np.arange(a + b, dtype=np.int32), np.ones(a + b, np.float32), a) for a, b in lengths]
    row = pack(examples, 14, 0)
    batch = Batch(*(getattr(row, f"{name[:-3]}_T")[None] for name in Batch._fields))
    counts = sequence_logprobs(-np.ones((1, 14), np.float32), batch.mask_BT, batch.segments_BT, 14)
    chosen, rejected = split_pairs(counts)
    np.testing.assert_array_equal(chosen[0, :3], [2, 1, 0])
    np.testing.assert_array_equal(rejected[0, :3], [1, 3, 0])
    np.testing.assert_array_equal(real_pairs(batch), [[True] * 2 + [False] * 5])


@pytest.mark.parametrize("values", [{"beta": 0.0}, {"label_smoothing": 0.5}, {"label_smoothing": -0.1}])
def test_a_configuration_without_sense_is_refused(values):
    with pytest.raises(UserError, match=f"DpoConfig.{next(iter(values))}"):
        DpoConfig(**values)


CONFIG, LORA, DPO = tiny(), LoraConfig(rank=4, alpha=8.0), DpoConfig(beta=0.5)


def preferences(batch: Batch) -> Batch:
    """Two conversations of six tokens a row: a prompt of two tokens, the rest the answer."""
    index = np.broadcast_to(np.arange(12, dtype=np.int32), batch.tokens_BT.shape)
    mask = ((index % 6 >= 2) & (index % 6 < 5)).astype(np.float32)
    return batch._replace(mask_BT=mask, positions_BT=index % 6, segments_BT=1 + index // 6)


def trained(lora, batch, steps, accumulate=1):
    """The metrics of each step from one model's variables, and the last state."""
    optimizer = OptimizerConfig(weight_decay=0.0)
    trainer = Trainer(CONFIG, Execution(), optimizer, balance_rate=0.0, loss_chunk=8, lora=lora, dpo=DPO)
    base = random_variables(CONFIG, Execution())
    state, metrics = quick_jit(start_from, static_argnums=0)(trainer, base, jax.random.key(1)), []
    if accumulate > 1:
        batch = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), batch)
    for _ in range(steps):
        state, now = quick_jit(train_step, static_argnums=0)(trainer, state, batch, 1e-2, base)
        metrics.append(jax.device_get(now))
    return metrics, state


@pytest.mark.parametrize("lora", [LORA, None], ids=["adapters", "parameters"])
def test_training_on_preferences_widens_the_margin(lora):
    metrics, _ = trained(lora, preferences(random_batch(CONFIG, 4)), 30)
    assert float(metrics[0].loss) == pytest.approx(np.log(2), rel=1e-4)
    assert float(metrics[0].preference.margin) == pytest.approx(0, abs=1e-4)
    last = metrics[-1]
    assert last.loss < 0.1 and last.preference.margin > 3 and last.preference.accuracy == 1
    assert last.preference.pairs == 4
    assert last.preference.margin == pytest.approx(
        last.preference.chosen_reward - last.preference.rejected_reward, rel=1e-4
    )


def test_accumulated_preferences_are_one_batch():
    """A pair counts the same in whichever part it is, and one part has one pair less."""
    batch = preferences(random_batch(CONFIG, 4))
    batch.mask_BT[0, :6] = 0  # no chosen answer
    (whole,), one = trained(None, batch, 1)
    (parts,), two = trained(None, batch, 1, accumulate=2)
    assert whole.preference.pairs == parts.preference.pairs == 3
    for a, b in zip(jax.tree.leaves((whole, one)), jax.tree.leaves((parts, two)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


def test_evaluation_is_the_loss_on_pairs():
    trainer = Trainer(CONFIG, Execution(), dpo=DPO)
    base = random_variables(CONFIG, Execution())
    total, count = quick_jit(evaluate_step, static_argnums=0)(trainer, base, preferences(random_batch(CONFIG, 2)), base)
    assert (float(total / count), int(count)) == (pytest.approx(np.log(2), rel=1e-5), 2)
