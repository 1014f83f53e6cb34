"""What rounding may cost.

float32: our distance from the float64 truth is at most four times that of a plain numpy float32 forward pass (the
oracle in float32), and a route may only flip where its margin is within that noise. bfloat16: a small divergence from
float32, and float32 where the policy promises it.
"""

import functools
import warnings

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model.helpers import (
    FULL,
    LAYOUTS,
    SLIDING,
    compiled,
    first_flips,
    lay_out,
    quick_jit,
    random_tensors,
    random_variables,
    small,
)
from tests.model.oracle import forward
from zaya_jax.model import Execution, Zaya, init_cache

SEEDS = (0, 1, 2)
CONFIG = small()
LENGTH = 48


@functools.cache
def truths(seed):
    """A row of tokens, the oracle in float64, and in float32 along the same routes."""
    batch = lay_out(CONFIG, [[LENGTH]], seed)
    tensors = random_tensors(CONFIG, seed)
    exact = forward(CONFIG, tensors, batch.tokens[0])
    rough = forward(CONFIG, tensors, batch.tokens[0], exact.routes_LT, np.float32)
    assert rough.logits_TV.dtype == np.float32
    return batch, exact, rough


def run(seed, execution, routes=None):
    batch, exact, _ = truths(seed)
    routes = np.full((CONFIG.num_layers, 1, LENGTH), -1, np.int8) if routes is None else routes[:, None].astype(np.int8)
    return compiled(CONFIG, execution)(random_variables(CONFIG, execution, seed), *batch, routes=routes)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_float32_is_as_close_as_float32_can_be(seed, layout):
    _, exact, rough = truths(seed)
    out = run(seed, Execution(layout=layout), exact.routes_LT)
    noise = np.abs(rough.logits_TV - exact.logits_TV)
    ours = np.abs(np.asarray(out.logits[0], np.float64) - exact.logits_TV)
    assert out.logits.dtype == jnp.float32
    assert 0 < noise.max() < 1e-4
    assert ours.max() <= 4 * noise.max() and np.median(ours) <= 4 * np.median(noise)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_float32_routes_flip_only_within_the_noise(layout):
    flips, choices = 0, 0
    for seed in SEEDS:
        _, exact, rough = truths(seed)
        taken = np.asarray(run(seed, Execution(layout=layout)).routes_LBT)[:, 0]
        noise = 4 * np.abs(rough.scores_LTC - exact.scores_LTC).max()
        flipped = taken != exact.routes_LT
        first = first_flips(flipped)
        assert (exact.margins_LT[first] <= 2 * noise).all(), exact.margins_LT[first]  # either score may be off
        flips, choices = flips + flipped.sum(), choices + flipped.size
    if flips:
        warnings.warn(f"{flips} of {choices} float32 routes differ from float64, all within the noise", stacklevel=1)


def divergence(p_logits, q_logits):
    """Mean KL(p || q) over the tokens, in nats."""
    p, q = (jax.nn.log_softmax(np.asarray(logits, np.float64)) for logits in (p_logits, q_logits))
    return float(jnp.mean(jnp.sum(jnp.exp(p) * (p - q), -1)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_bfloat16_diverges_little(seed, layout):
    """Along the same routes, since a flipped route is another function.

    bfloat16 rounds operands to within 2^-9. A dozen rounded products lie one behind the other in each of 4 layers;
    their errors add up like a random walk to about sqrt(48) * 2^-9 = 1.4% of the logits, which have a standard
    deviation of about 3: an error of 0.04, and KL is about half the variance of the error, 8e-4.
    """
    _, exact, _ = truths(seed)
    out = run(seed, Execution(dtype="bfloat16", layout=layout), exact.routes_LT)
    assert np.isfinite(out.logits).all()
    assert divergence(exact.logits_TV, out.logits[0]) < 4 * 8e-4


def test_bfloat16_is_not_float32_in_disguise():
    _, exact, _ = truths(0)
    out = run(0, Execution(dtype="bfloat16"), exact.routes_LT)
    assert np.abs(np.asarray(out.logits[0]) - exact.logits_TV).max() > 1e-3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_stays_float32_under_bfloat16(layout):
    execution = Execution(dtype="bfloat16", layout=layout)
    cache = init_cache(CONFIG, execution, 1, 8)
    call = functools.partial(compiled(CONFIG, execution), cache=cache)
    out = jax.eval_shape(call, random_variables(CONFIG, execution), *lay_out(CONFIG, [[4]]))
    assert out.logits.dtype == jnp.float32 and out.hidden_BTD.dtype == jnp.bfloat16
    for entry in out.cache.layers:
        assert entry.k_BSKH.dtype == entry.v_BSKH.dtype == jnp.bfloat16
        assert entry.conv_B2U.dtype == entry.delayed_BX.dtype == jnp.float32


@pytest.mark.parametrize("layout", LAYOUTS)
def test_norms_and_softmaxes_are_float32_under_bfloat16(layout):
    """Read off the traced program: no root, no exponential and no sum is taken in bfloat16."""
    execution = Execution(dtype="bfloat16", layout=layout)
    batch, variables = lay_out(CONFIG, [[4]]), random_variables(CONFIG, execution)
    traced = jax.make_jaxpr(Zaya(CONFIG, execution).apply)(variables, *batch)
    found = set(primitives(traced.jaxpr))
    assert {("rsqrt", "float32"), ("exp", "float32"), ("reduce_sum", "float32")} <= found
    assert {name for name, dtype in found if dtype == "bfloat16"}.isdisjoint({"rsqrt", "sqrt", "exp", "reduce_sum"})


def primitives(jaxpr):
    """(name, type of the first result) of every operation, inner programs included."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name, str(getattr(equation.outvars[0].aval, "dtype", None))
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from primitives(inner)


def test_bfloat16_decodes_as_it_prefills():
    """Keys and values are rounded alike, so that only the order of sums differs."""
    execution = Execution(dtype="bfloat16")
    batch, exact, _ = truths(0)
    whole = run(0, execution, exact.routes_LT)
    variables, step = random_variables(CONFIG, execution), compiled(CONFIG, execution)
    cache, logits = init_cache(CONFIG, execution, 1, LENGTH), []
    for t in range(LENGTH):
        now = (a[:, t : t + 1] for a in batch)
        out = step(variables, *now, cache=cache, routes=exact.routes_LT[:, None, t : t + 1].astype(np.int8))
        cache, _ = out.cache, logits.append(out.logits[0, 0])
    assert divergence(whole.logits[0], jnp.stack(logits)) < 4 * 8e-4


def test_bfloat16_gradients_are_finite_and_alike():
    config = small((SLIDING, FULL))
    batch = lay_out(config, [[LENGTH]])
    routes = forward(config, random_tensors(config, 0), batch.tokens[0]).routes_LT[:, None].astype(np.int8)
    weight = np.random.RandomState(3).standard_normal((LENGTH, config.vocab_size)).astype(np.float32)

    def gradient(execution):
        variables = random_variables(config, execution)

        def loss(params):
            out = Zaya(config, execution).apply({**variables, "params": params}, *batch, routes=routes)
            return jnp.mean(jax.nn.log_softmax(out.logits[0]) * weight)

        return jnp.concatenate([g.ravel() for g in jax.tree.leaves(quick_jit(jax.grad(loss))(variables["params"]))])

    rough, fine = gradient(Execution(dtype="bfloat16")), gradient(Execution())
    assert rough.dtype == jnp.float32 and np.isfinite(rough).all()
    cosine = jnp.vdot(rough, fine) / jnp.linalg.norm(rough) / jnp.linalg.norm(fine)
    assert cosine > 0.99
