"""The loss in chunks against the loss on all logits, and what arrays it makes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params
from jax.sharding import PartitionSpec

from tests.model.helpers import quick_jit
from zaya_jax.errors import UserError
from zaya_jax.model import Execution
from zaya_jax.model.layers import dense
from zaya_jax.parallel import make_mesh
from zaya_jax.train.loss import chunked_cross_entropy, chunked_nats, cross_entropy

EXACT = Execution(dtype="float64")
P, D, V = 13, 6, 37


def case(execution=EXACT, tokens=P, width=D, vocabulary=V):
    random = np.random.default_rng(0)
    hidden = jnp.asarray(random.standard_normal((tokens, width)), execution.compute_dtype)
    embedding = jnp.asarray(random.standard_normal((vocabulary, width)), execution.exact_dtype)
    mask = random.choice([0.0, 0.5, 1.0], tokens)
    return hidden, embedding, jnp.asarray(random.integers(0, vocabulary, tokens)), jnp.asarray(mask, jnp.float32)


def whole(execution, hidden, embedding, targets, mask):
    return cross_entropy(dense(execution, hidden, embedding), targets, mask)


def slope(function, *arguments):
    """Mean, count and both gradients; the mean is not the sum, so that its factor matters."""

    def mean(hidden, embedding, targets, mask):
        total, count = function(hidden, embedding, targets, mask)
        return total / count, count

    return quick_jit(jax.value_and_grad(mean, argnums=(0, 1), has_aux=True))(*arguments)


def assert_same(found, expected, tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("chunk", [1, 4, 13, 100])
def test_equals_the_loss_on_all_logits(x64, chunk):
    found = slope(lambda *a: chunked_cross_entropy(EXACT, *a, chunk), *case())
    assert_same(found, slope(lambda *a: whole(EXACT, *a), *case()), 1e-12)


def test_nats_of_every_token_and_their_gradients(x64):
    hidden, embedding, targets, mask = case()
    logits = np.asarray(hidden) @ np.asarray(embedding).T
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(P), targets]
    np.testing.assert_allclose(chunked_nats(EXACT, 4, hidden, embedding, targets), expected, atol=1e-12)

    def bent(nats):  # no plain sum of them
        return jnp.sum(jnp.tanh(nats - 3) * mask), jnp.sum(mask)

    def by_logits(*a):
        logits = dense(EXACT, a[0], a[1])
        return bent(jax.nn.logsumexp(logits, axis=1) - jnp.take_along_axis(logits, a[2][:, None], axis=1)[:, 0])

    found = slope(lambda *a: bent(chunked_nats(EXACT, 4, *a[:3])), *case())
    assert_same(found, slope(by_logits, *case()), 1e-12)


def test_bfloat16_operands_and_float32_sums():
    """Gradients of products are rounded before they meet the next product, in whatever order it is divided."""
    execution = Execution(dtype="bfloat16")
    arguments = case(execution)
    (loss, count), gradients = slope(lambda *a: chunked_cross_entropy(execution, *a, 4), *arguments)
    (expected, _), others = slope(lambda *a: whole(execution, *a), *arguments)
    assert (loss.dtype, count.dtype, gradients[0].dtype, gradients[1].dtype) == (
        *("float32", "float32"),
        *("bfloat16", "float32"),
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert_same(gradients, others, 2e-2)


@pytest.mark.parametrize("stranger", [-1, V, V + 5])
def test_a_target_outside_of_the_vocabulary_is_not_passed_over(x64, stranger):
    hidden, embedding, targets, mask = case()
    targets = targets.at[3].set(stranger)
    assert np.isnan(chunked_cross_entropy(EXACT, hidden, embedding, targets, mask.at[3].set(1.0), 4)[0])
    masked = (hidden, embedding, targets, mask.at[3].set(0.0))
    found = slope(lambda *a: chunked_cross_entropy(EXACT, *a, 4), *masked)
    assert_same(found, slope(lambda *a: whole(EXACT, *a), *masked), 1e-12)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    assert not np.any(np.asarray(found[1][0])[3])


def test_nothing_to_count_is_zero():
    hidden, embedding, targets, mask = case(Execution())
    assert [float(x) for x in chunked_cross_entropy(Execution(), hidden, embedding, targets, 0 * mask, 4)] == [0, 0]


def test_a_chunk_of_nothing_is_a_users_mistake():
    with pytest.raises(UserError, match=r"chunk of the loss: .*found 0"):
        chunked_cross_entropy(Execution(), *case(Execution()), 0)


def sizes(jaxpr):
    """Numbers in each array that a program makes, inner programs included."""
    for equation in jaxpr.eqns:
        yield from (math.prod(x.aval.shape) for x in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from sizes(inner)


@pytest.mark.parametrize("each", [False, True], ids=["sum", "nats"])
def test_no_logits_of_all_tokens(each):
    """The vocabulary of ZAYA1; a chunk of its logits is the largest array, in the forward and the backward pass."""
    tokens, chunk, vocabulary = 64, 8, 262_272
    execution = Execution()

    def loss(hidden, embedding, targets, mask):
        if each:
            return jnp.sum(chunked_nats(execution, chunk, hidden, embedding, targets) * mask)
        return chunked_cross_entropy(execution, hidden, embedding, targets, mask, chunk)[0]

    slopes, arguments = jax.value_and_grad(loss, argnums=(0, 1)), case(execution, tokens, 4, vocabulary)
    jaxpr = jax.make_jaxpr(slopes)(*arguments)
    assert max(sizes(jaxpr.jaxpr)) == chunk * vocabulary
    # Logits once for the sum, twice for single tokens; two products more for the gradients.
    assert str(jaxpr).count("dot_general") == (4 if each else 3)
    memory = quick_jit(slopes).lower(*arguments).compile().memory_analysis()
    assert memory.temp_size_in_bytes < tokens * vocabulary * 4 / 2


def test_the_vocabulary_of_zaya1():
    execution, vocabulary = Execution(), 262_272
    arguments = case(execution, 12, 4, vocabulary)
    found = slope(lambda *a: chunked_cross_entropy(execution, *a, 5), *arguments)
    assert_same(found, slope(lambda *a: whole(execution, *a), *arguments), 1e-5)


def test_runs_on_a_device_for_its_own_tokens(x64):
    """Inside `shard_map`, as a step over several devices calls it."""
    rows, whole_table = PartitionSpec("data"), PartitionSpec()

    def local(hidden, embedding, targets, mask):
        total, count = chunked_cross_entropy(EXACT, hidden, embedding, targets, mask, 4)
        return lax.psum(total, "data"), lax.psum(count, "data")

    places = {"in_specs": (rows, whole_table, rows, rows), "out_specs": whole_table}
    mapped = jax.shard_map(local, mesh=make_mesh(), **places, check_vma=False)
    assert_same(slope(mapped, *case()), slope(lambda *a: whole(EXACT, *a), *case()), 1e-12)
