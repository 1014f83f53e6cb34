"""min-p and its replay: what the learner computes is the probability under the very ids that a token was drawn from."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.rl.rollouts import ANSWERS, CONFIG, recorded, trainer, variables
from zaya_jax.errors import UserError
from zaya_jax.model import Zaya
from zaya_jax.rl.batch import learner_batches
from zaya_jax.rl.generation import Decoding
from zaya_jax.rl.learner import Learner, accumulate, divisor, log_probabilities, nothing_yet
from zaya_jax.rl.parity import compare
from zaya_jax.rl.rollout import Kept, rollout
from zaya_jax.sampling.request import Completion
from zaya_jax.train.step import start_from

pytestmark = pytest.mark.usefixtures("quick_programs")
ADVANTAGES = (1.0, -0.5, 0.25, -1.0, 2.0, 0.5)
# min-p decides of the one, the most ids that a token may have of the other.
CASES = {"few of many": (0.05, 64), "all there is room for": (1e-6, 5)}


@pytest.fixture(params=CASES.values(), ids=CASES)
def answers(request):
    return recorded("float64", *request.param)


def state_of(learner, moved=0.0):
    """The engine's weights, or others nearby."""
    own = variables()
    stir = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + moved * stir.normal(size=x.shape), own["params"])
    return start_from(learner.trainer, own | {"params": params}, jax.random.key(0))


def parity(learner, state, found):
    join = functools.partial(map, np.asarray)
    rows = [join((b.mu_BT, log_probabilities(learner, state, b)[0], b.mask_BT)) for b in found]
    return compare(*(np.concatenate(parts) for parts in zip(*rows)))


def test_the_engine_keeps_few_ids_and_its_probabilities_are_among_them(answers):
    counts = np.concatenate([one.kept.counts for one in answers])
    assert len(counts) == sum(ANSWERS) and counts.min() >= 1 and counts.max() <= answers[0].kept.most
    assert counts.max() > 1 and counts.max() < CONFIG.vocab_size / 4
    for one in answers:
        assert all(token in ids for token, ids in zip(one.tokens, one.kept.padded()))


@pytest.mark.parametrize("chunk", [0, 7])
def test_replayed_ids_give_the_engines_probabilities_and_others_do_not(x64, answers, chunk):
    learner = Learner(dataclasses.replace(trainer(), loss_chunk=chunk))
    state, found = state_of(learner), learner_batches(answers, ADVANTAGES, 2, 40)
    replayed = parity(learner, state, found)
    assert replayed.tokens == sum(ANSWERS) and replayed.max_delta <= 1e-8
    everything = parity(learner, state, [batch._replace(kept_BTK=None) for batch in found])
    assert everything.max_delta > 1e-3, "among all ids they are less probable"


def by_hand(learner, state, answers):
    """Loss and gradient, and log pi of every drawn token: a row a rollout, the softmax of its kept logits alone."""
    model, T = Zaya(CONFIG, learner.trainer.execution), max(one.length for one in answers) - 1
    rows = [np.concatenate([one.prompt, one.tokens])[:-1] for one in answers]
    tokens = np.stack([np.pad(row, (0, T - len(row))) for row in rows])
    real = np.stack([np.arange(T) < len(row) for row in rows])
    routes = np.stack([np.pad(one.routes_LT, ((0, 0), (0, T - one.routes_LT.shape[1]))) for one in answers], 1)

    def total(params):
        given = {"params": params, "balance": state.balance}
        logits = model.apply(given, tokens, np.arange(T) * real, real.astype(np.int32), routes=routes).logits
        out, every = 0.0, []
        for row, (one, advantage) in enumerate(zip(answers, ADVANTAGES[2:4], strict=True)):
            first, N = len(one.prompt) - 1, len(one.tokens)
            allowed = np.zeros((N, CONFIG.vocab_size), bool)
            for place, ids in zip(allowed, one.kept.padded(), strict=True):
                place[ids[ids >= 0]] = True
            logp = jax.nn.log_softmax(jnp.where(allowed, logits[row, first : first + N], -jnp.inf))
            logp = logp[jnp.arange(N), one.tokens]
            weight = jax.lax.stop_gradient(jnp.minimum(jnp.exp(logp - one.mu), 20.0))
            moved = jax.lax.stop_gradient(jnp.exp(logp) - np.exp(one.mu)) * np.sign(advantage)
            out += jnp.where(moved <= 0.1, -advantage * weight * logp, 0).sum() / len(answers)
            every.append(logp)
        return out, jnp.concatenate(every)

    return jax.jit(jax.value_and_grad(total, has_aux=True))(state.params)


def test_of_weights_that_have_moved_it_is_the_softmax_over_the_same_ids(x64):
    """Where the filter itself would now keep others."""
    answers = recorded("float64", *CASES["few of many"])[2:4]
    learner = Learner(dataclasses.replace(trainer(), loss_chunk=16))
    state, (batch,) = state_of(learner, moved=0.01), learner_batches(answers, ADVANTAGES[2:4], 2, 24)
    sums = accumulate(learner, state, nothing_yet(learner, state), batch, divisor(learner, [batch]))
    (loss, logp), gradients = by_hand(learner, state, answers)
    assert np.abs(logp - np.concatenate([one.mu for one in answers])).max() > 1e-3, "they have moved"
    np.testing.assert_allclose(sums.loss, loss, rtol=1e-10)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), sums.gradients, gradients)
    found = np.sort(np.asarray(log_probabilities(learner, state, batch)[0])[batch.mask_BT > 0])
    np.testing.assert_allclose(found, np.sort(logp), atol=1e-10)


def test_a_forced_token_was_drawn_from_nothing():
    kept_KN = np.array([[5, 9, 2], [7, 8, -1], [-1, 3, -1]], np.int32)
    zeros = np.zeros(3, np.float32)
    routes, versions = np.zeros((1, 4), np.int8), np.zeros(3, np.int32)
    done = Completion(
        "a", np.array([7, 1, 2], np.int32), zeros, zeros, routes, "stop", versions, think_end=1, think_forced=True,
        kept_KN=kept_KN,
    )  # fmt: skip
    one = rollout(np.array([3, 4]), done)
    np.testing.assert_array_equal(one.kept.counts, [2, 0, 1])
    np.testing.assert_array_equal(one.kept.padded(), [[5, 7, -1], [-1, -1, -1], [2, -1, -1]])
    batch = learner_batches([one], [1.0], 1, 6)[0]
    np.testing.assert_array_equal(batch.kept_BTK[0], [[-1] * 3, [5, 7, -1], [-1] * 3, [2, -1, -1], [-1] * 3, [-1] * 3])


def test_padding_is_made_for_any_counts():
    ids = np.arange(6, dtype=np.int32)
    np.testing.assert_array_equal(Kept(ids[:3], np.array([0, 2, 1]), 2).padded(), [[-1, -1], [0, 1], [2, -1]])
    np.testing.assert_array_equal(Kept(ids, np.array([3, 3]), 3).padded(), ids.reshape(2, 3))


def test_mistakes():
    with pytest.raises(UserError, match=r"Decoding.min_p: out of range"):
        Decoding(min_p=1.5)
    with pytest.raises(UserError, match=r"decoding.kept: too few; expected 2 or more"):
        Decoding(kept=1)
