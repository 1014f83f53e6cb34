"""The learner against the engine and against definitions: replayed routes, packed rows, one update by many batches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.rl.rollouts import CONFIG, answers, drawn, engine_of, recorded, trainer, variables
from zaya_jax.errors import UserError
from zaya_jax.model import Zaya
from zaya_jax.model import router as routers
from zaya_jax.rl.aggregation import AggregationConfig
from zaya_jax.rl.batch import learner_batches
from zaya_jax.rl.devices import weights_for
from zaya_jax.rl.learner import Learner, accumulate, divisor, learn, log_probabilities, nothing_yet
from zaya_jax.rl.losses import ClipConfig
from zaya_jax.rl.parity import compare
from zaya_jax.train.lora import LoraConfig
from zaya_jax.train.step import start_from

pytestmark = pytest.mark.usefixtures("quick_programs")
ADVANTAGES = (1.0, -0.5, 0.25, -1.0, 2.0, 0.5)
LENGTH, ROWS = 40, 2


@pytest.fixture
def learner(x64):
    return Learner(trainer())


@pytest.fixture
def state(learner):
    return start_from(learner.trainer, variables(), jax.random.key(0))


def batches(dtype="float64", length=LENGTH, rows=ROWS, **options):
    return learner_batches(recorded(dtype), ADVANTAGES, rows, length, **options)


def parity(learner, state, found, replay=True):
    """Of all batches."""
    engine, policy, mask, mine, theirs = [], [], [], [], []
    for batch in found:
        asked = batch if replay else batch._replace(routes_LBT=np.full_like(batch.routes_LBT, -1))
        logp, routes = log_probabilities(learner, state, asked)
        for kept, new in zip(
            (engine, policy, mask, mine, theirs), (batch.mu_BT, logp, batch.mask_BT, batch.routes_LBT, routes)
        ):
            kept.append(np.asarray(new))
    join = functools.partial(np.concatenate)
    return compare(join(engine), join(policy), join(mask), join(mine, axis=1), join(theirs, axis=1))


def test_a_batch_says_of_every_token_what_was_recorded():
    (batch,) = batches(length=64, rows=3)
    row, counted = batch.segments_BT, 0
    for b in range(batch.rows):
        for segment in range(1, row[b].max() + 1):
            (here,) = np.nonzero(row[b] == segment)
            tokens = np.append(batch.tokens_BT[b, here], batch.targets_BT[b, here[-1]])
            matches = [one for one in recorded() if np.array_equal(np.concatenate([one.prompt, one.tokens]), tokens)]
            assert matches, "every segment is a rollout"
            one, answer = matches[0], here[len(matches[0].prompt) - 1 :]
            np.testing.assert_array_equal(batch.mu_BT[b, answer], one.mu)
            np.testing.assert_array_equal(batch.routes_LBT[:, b, here], one.routes_LT)
            np.testing.assert_array_equal(batch.positions_BT[b, here], np.arange(len(here)))
            assert batch.mask_BT[b, here].sum() == len(one.tokens) == batch.mask_BT[b, answer].sum()
            counted += 1
    assert counted == len(recorded()) and (batch.mask_BT[row == 0] == 0).all()


def test_replayed_routes_give_the_engines_probabilities(learner, state):
    found = parity(learner, state, batches())
    assert found.tokens == sum(len(one.tokens) for one in recorded())
    assert found.max_delta <= 1e-8 and found.kl <= 1e-15 and found.route_flips == 0


def test_in_float32_replay_is_within_the_noise_of_float32():
    """Of the engine's own rollouts in float32: the learner's distance to it against that to float64."""
    found = learner_batches(recorded("float32"), ADVANTAGES, ROWS, LENGTH)
    logp = {}
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            own = Learner(trainer(dtype))
            state = start_from(own.trainer, variables(dtype), jax.random.key(0))
            exact = [batch._replace(mu_BT=batch.mu_BT.astype(dtype)) for batch in found]
            logp[dtype] = np.concatenate([np.asarray(log_probabilities(own, state, one)[0], float) for one in exact])
    mask, mu = (np.concatenate([getattr(batch, name) for batch in found]) for name in ("mask_BT", "mu_BT"))
    noise = np.abs(logp["float32"] - logp["float64"])[mask > 0].max()
    delta = np.abs(logp["float32"] - mu)[mask > 0].max()
    assert 0 < noise < 1e-4 and delta <= 4 * noise, (delta, noise)


def test_close_routes_flip_without_replay_and_not_with_it():
    """One model, one version. A bias is moved until the learner's choice for a token hangs on its last bit; the engine,
    which computes the same in other shapes, chooses otherwise for some such tokens."""
    own, flips = Learner(trainer("float32")), 0
    state = start_from(own.trainer, variables("float32"), jax.random.key(0))
    for token in range(6):
        for bias in _last_bits(own, state, token):
            weights = _biased(variables("float32"), bias)
            found = learner_batches(drawn(weights, "float32"), ADVANTAGES, ROWS, LENGTH)
            moved = state.replace(balance=weights["balance"])
            replayed, live = parity(own, moved, found), parity(own, moved, found, replay=False)
            assert replayed.route_flips == 0 and replayed.max_delta <= 1e-5
            flips += live.route_flips
    assert flips > 0


def test_new_weights_of_the_engine_bring_the_routers_biases_along():
    """Nothing else has changed: were they forgotten, the engine would choose as before."""
    own, engine = Learner(trainer("float32")), engine_of(variables("float32"), "float32")
    state = start_from(own.trainer, variables("float32"), jax.random.key(0))
    moved = state.replace(balance=_biased({"balance": state.balance}, 0.5)["balance"])
    engine.update_weights(weights_for(engine.model, None, moved.variables), 1)
    found = learner_batches(answers(engine, "float32"), ADVANTAGES, ROWS, LENGTH)
    same, before = (parity(own, one, found, replay=False) for one in (moved, state))
    assert same.route_flips == 0 and same.max_delta < 1e-5
    assert before.route_flips > 0 and before.max_delta > 1e-3


def _biased(weights, bias):
    """With the first expert's bias in the last layer."""

    def moved(path, x):
        return x.at[-1, 0].set(bias) if "block_1" in jax.tree_util.keystr(path) else x

    return {**weights, "balance": jax.tree_util.tree_map_with_path(moved, weights["balance"])}


def _last_bits(own, state, token):
    """Two neighbouring biases: with one the learner gives the token of the first prompt to the first expert, with the
    other not."""
    (batch,) = learner_batches(recorded("float32")[2:3], ADVANTAGES[:1], 1, LENGTH)
    live = batch._replace(routes_LBT=np.full_like(batch.routes_LBT, -1))

    def first(bias):
        balance = _biased({"balance": state.balance}, bias)["balance"]
        return np.asarray(log_probabilities(own, state.replace(balance=balance), live)[1])[-1, 0, token] == 0

    low, high = np.float32(-4), np.float32(4)
    assert first(high) and not first(low)
    while np.nextafter(low, high) < high:
        middle = np.float32((low + high) / 2)
        low, high = (low, middle) if first(middle) else (middle, high)
        if middle in (low, high) and np.float32((low + high) / 2) in (low, high):
            break
    return low, high


def test_bfloat16_is_within_the_reports_target():
    own = Learner(trainer("bfloat16"))
    state = start_from(own.trainer, variables("bfloat16"), jax.random.key(0))
    found = parity(own, state, batches("bfloat16"))
    assert found.kl <= 1.3e-4 and found.pearson > 0.9996


def test_other_routes_give_other_probabilities(learner, state):
    """Routes are pinned: those of a model whose biases have moved are not its own, and what it says changes."""
    moved = state.replace(
        balance=jax.tree.map(lambda x: x + 0.3 * jnp.sin(jnp.arange(x.size).reshape(x.shape)), state.balance)
    )
    replayed, live = parity(learner, moved, batches()), parity(learner, moved, batches(), replay=False)
    assert replayed.max_delta <= 1e-8 and replayed.route_flips == 0, "biases choose; they enter no gate"
    assert live.route_flips > 0 and live.max_delta > 1e-3


def test_a_renormalised_gate_is_found_out(learner, state, monkeypatch):
    """For one expert of each token, a gate renormalised over the replayed choice would be 1 everywhere."""
    right = routers.route

    def renormalised(*arguments, **options):
        found = right(*arguments, **options)
        return found._replace(gate_BT=jnp.ones_like(found.gate_BT))

    monkeypatch.setattr("zaya_jax.model.zaya.route", renormalised)
    jax.clear_caches()
    try:
        assert parity(learner, state, batches()).max_delta > 1e-3
    finally:
        monkeypatch.undo()
        jax.clear_caches()


def by_hand(learner, state, loss):
    """The mean over rollouts of their summed token losses, a row each, from the logits of all tokens."""
    model, T = Zaya(CONFIG, learner.trainer.execution), max(one.length for one in recorded())
    rows = [np.concatenate([one.prompt, one.tokens]) for one in recorded()]
    tokens = np.stack([np.pad(row, (0, T - len(row))) for row in rows])
    real = np.stack([np.arange(T - 1) < len(row) - 1 for row in rows])
    routes = np.stack(
        [np.pad(one.routes_LT, ((0, 0), (0, T - one.length)), constant_values=-1) for one in recorded()], 1
    )
    positions = np.broadcast_to(np.arange(T - 1), real.shape) * real

    def total(params):
        own = {"params": params, "balance": state.balance}
        logits = model.apply(own, tokens[:, :-1], positions, real.astype(np.int32), routes=routes).logits
        out = 0.0
        for row, (one, advantage) in enumerate(zip(recorded(), ADVANTAGES, strict=True)):
            first, N = len(one.prompt) - 1, len(one.tokens)
            logp_N = jax.nn.log_softmax(logits[row, first : first + N])[jnp.arange(N), one.tokens]
            out += loss(logp_N, one.mu, advantage).sum()
        return out / len(ADVANTAGES)

    return jax.jit(jax.value_and_grad(total))(state.params)


@pytest.mark.parametrize("rows,length", [(2, 40), (1, 64)])
def test_gradients_do_not_depend_on_packing(learner, state, rows, length):
    """At pi = mu the gradient is the policy gradient: -A * grad log pi of every drawn token."""
    found = batches(rows=rows, length=length)
    sums, by = nothing_yet(learner, state), divisor(learner, found)
    assert by == len(ADVANTAGES)
    for batch in found:
        sums = accumulate(learner, state, sums, batch, by)
    _, expected = by_hand(learner, state, lambda logp, mu, advantage: -advantage * logp)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), sums.gradients, expected)
    assert sums.told.tokens == sum(len(one.tokens) for one in recorded()) == sums.told.kept


def test_an_update_moves_probabilities_where_advantages_point(learner, state):
    found = batches()
    before = [np.asarray(log_probabilities(learner, state, batch)[0]) for batch in found]
    state, told = learn(learner, state, found, 1e-3)
    assert bool(told.applied) and int(state.step) == 1
    gain = sum(
        float(((np.asarray(log_probabilities(learner, state, batch)[0]) - old) * batch.advantages_BT).sum())
        for batch, old in zip(found, before)
    )
    assert gain > 0


def test_what_stands_still(learner, state):
    """Biases of the routers, and everything where the loss is not a number."""
    kept = jax.tree.map(np.asarray, state)
    state, told = learn(learner, state, batches(), 1e-3)
    jax.tree.map(np.testing.assert_array_equal, state.balance, kept.balance)
    broken = [batch._replace(advantages_BT=batch.advantages_BT * np.nan) for batch in batches()]
    kept = jax.tree.map(np.asarray, state.params)
    state, told = learn(learner, state, broken, 1e-3)
    assert not bool(told.applied) and int(state.step) == 2
    jax.tree.map(np.testing.assert_array_equal, state.params, kept)


def test_other_losses_and_means(state, x64):
    own = Learner(trainer(), ClipConfig(), AggregationConfig("token_mean"))
    found = batches()
    assert divisor(own, found) == sum(len(one.tokens) for one in recorded())
    _, told = learn(own, state, found, 1e-3)
    assert float(told.told.ratio / told.told.tokens) == pytest.approx(1, abs=1e-8)


def test_mistakes():
    with pytest.raises(UserError, match=r"rollout 0: longer than a row; expected 10; found 11"):
        batches(length=10)
    with pytest.raises(UserError, match="one advantage for each rollout"):
        learner_batches(recorded(), [1.0], 2, 40)
    with pytest.raises(UserError, match="no such trainer"):
        Learner(dataclasses.replace(trainer(), lora=LoraConfig()))
