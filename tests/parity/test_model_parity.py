"""The model next to transformers 5.23 on fresh random weights: logits, routes, gradients, greedy text, rounding.

The oracle in float64 is transformers with its own float32 islands taken out (`reference_model.really_float64`).
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model.generation import assert_same_choices, greedy
from tests.model.helpers import (
    FULL,
    LAYOUTS,
    SLIDING,
    assert_close,
    compiled,
    first_flips,
    lay_out,
    random_tensors,
    to_variables,
)
from tests.model.oracle import forward
from tests.parity.cases import ALTERNATING, CASES, larger
from zaya_jax.model import Execution, Zaya

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from tests.parity import reference_model  # noqa: E402

pytestmark = pytest.mark.parity

SEEDS = (1, 2, 3)
TOLERANCE = 2e-5  # of the largest logit


def ours(config, tensors, batch, execution, routes=None):
    """Logits [B, T, V] in float64 and routes [L, B, T]."""
    dtype = "float64" if execution.dtype == "float64" else "float32"
    variables = to_variables(config, execution.layout, tensors, dtype)
    routes = None if routes is None else np.where(batch.real, routes, -1).astype(np.int8)
    out = compiled(config, execution)(variables, *batch, routes=routes)
    return np.asarray(out.logits, np.float64), np.asarray(out.routes_LBT)


def exact(config, tensors, batch, routes=None):
    """transformers in float64."""
    with reference_model.really_float64():
        return reference_model.run(reference_model.load(config, tensors, torch.float64), batch, routes)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_logits(name, seed):
    """float32. Where a route flips, which only a near-tie may do, the rest is compared along transformers' routes."""
    case = CASES[name]
    batch, tensors = lay_out(case.config, case.rows, seed), random_tensors(case.config, seed)
    expected = reference_model.run(reference_model.load(case.config, tensors), batch)
    execution = Execution(layout=LAYOUTS[seed % 2])
    logits, routes = ours(case.config, tensors, batch, execution)
    flips = (routes != expected.routes)[:, batch.real].sum()
    if flips:
        warnings.warn(f"{name}, seed {seed}: {flips} routes differ from transformers", stacklevel=1)
        assert_near_ties(case.config, tensors, batch, routes, expected.routes)
        logits, _ = ours(case.config, tensors, batch, execution, expected.routes)
    difference = np.abs(logits - expected.logits)[batch.real].max()
    assert difference <= TOLERANCE * np.abs(expected.logits[batch.real]).max()


def assert_near_ties(config, tensors, batch, found, expected):
    """A flip that no other one caused is between two classes whose float64 scores are within 1e-5 of each other."""
    for row, columns in batch.documents():
        truth = forward(config, tensors, batch.tokens[row, columns])
        first = first_flips((found != expected)[:, row, columns])
        assert (truth.margins_LT[first] < 1e-5).all(), truth.margins_LT[first]


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
    """Without rounding there is nothing left to differ in: 1e-10, and every route."""
    case, seed = CASES[name], 4
    batch, tensors = lay_out(case.config, case.rows, seed), random_tensors(case.config, seed)
    expected = exact(case.config, tensors, batch)
    logits, routes = ours(case.config, tensors, batch, Execution(dtype="float64"))
    np.testing.assert_array_equal(routes[:, batch.real], expected.routes[:, batch.real])
    assert_close(logits[batch.real], expected.logits[batch.real], 1e-10)


def test_gradients(x64):
    """Of every parameter, against torch's backward pass, float64."""
    config = larger((SLIDING, FULL) * 2, sliding_window=6)
    batch, tensors = lay_out(config, [[21], [-5, 16]], 5), random_tensors(config, 5)
    weight = np.random.RandomState(0).standard_normal((2, 21, config.vocab_size)) * batch.real[..., None]
    with reference_model.really_float64():
        model = reference_model.load(config, tensors, torch.float64)
        model.model.embed_tokens.padding_idx = None  # torch withholds the gradient of looking up token 0
        out = reference_model.run(model, batch, grad=True)
        (torch.tanh(out.logits) * torch.from_numpy(weight)).sum().backward()
    theirs = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    theirs |= {name: np.zeros_like(value) for name, value in tensors.items() if "balancing" in name}

    for layout in LAYOUTS:
        execution = Execution(dtype="float64", layout=layout)
        variables = to_variables(config, layout, tensors, "float64")

        def loss(params, execution=execution, variables=variables):
            out = Zaya(config, execution).apply({**variables, "params": params}, *batch)
            return jnp.sum(jnp.tanh(out.logits) * weight)

        found = jax.jit(jax.grad(loss))(variables["params"])
        assert_close(found, to_variables(config, layout, theirs, "float64")["params"], 1e-9, layout)


def released_like(config, seed):
    """Random tensors in the ranges that the released 8B has (reference: a reading of its tensors)."""
    tensors = dict(random_tensors(config, seed))
    ranges = {
        "qk_norm.temp": (0.8, 12.9),
        "model.input_hidden_states_scale": (0.65, 3.03),
        "post_attention_residual_scale.residual_scale": (0.52, 2.03),
        "post_mlp_residual_scale.residual_scale": (0.05, 1.19),
        "model.norm.weight": (0.04, 5.0),
    }
    random = np.random.RandomState(seed)
    for name, value in tensors.items():
        for ending, (low, high) in ranges.items():
            if name.endswith(ending):
                tensors[name] = random.uniform(low, high, value.shape).astype(np.float32)
        if name.endswith("balancing_biases"):
            tensors[name][-1] = -1
    return tensors


@functools.cache
def forty_layers():
    config = larger((FULL,) * 40)
    batch, tensors = lay_out(config, [[40], [-8, 32]], 6), released_like(config, 6)
    expected = exact(config, tensors, batch)
    theirs = reference_model.run(reference_model.load(config, tensors), batch, expected.routes)
    return config, batch, tensors, expected, theirs.logits


@pytest.mark.parametrize("layout", LAYOUTS)
def test_forty_layers_stay_within_the_noise_of_float32(layout):
    """Along the routes of float64: at most four times as far from it as transformers in float32."""
    config, batch, tensors, expected, theirs = forty_layers()
    logits, _ = ours(config, tensors, batch, Execution(layout=layout), expected.routes)
    noise = np.abs(theirs - expected.logits)[batch.real]
    difference = np.abs(logits - expected.logits)[batch.real]
    print(
        f"max |logit| {np.abs(expected.logits).max():.1f}; transformers {noise.max():.1e}, ours {difference.max():.1e}"
    )
    assert difference.max() <= 4 * noise.max()
    assert np.median(difference) <= 4 * np.median(noise)


def test_forty_layers_in_float64(x64):
    config, batch, tensors, expected, _ = forty_layers()
    logits, routes = ours(config, tensors, batch, Execution(dtype="float64"))
    np.testing.assert_array_equal(routes[:, batch.real], expected.routes[:, batch.real])
    assert_close(logits[batch.real], expected.logits[batch.real], 1e-9)


@pytest.mark.parametrize(
    "config, rows",
    [(ALTERNATING, [[25], [-7, 18], [-24, 1]]), (larger(num_query_heads=16), [[9]])],
    ids=["left padded, sliding", "alone"],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_greedy_text(config, rows, seed):
    """64 tokens through our cache and through theirs."""
    prompts, tensors = lay_out(config, rows, seed), random_tensors(config, seed)
    model = reference_model.load(config, tensors)
    expected, margins = reference_model.generate(model, prompts.tokens, prompts.real, 64)
    variables = to_variables(config, "unstacked", tensors, "float32")
    found = greedy(config, Execution(layout="unstacked"), variables, prompts, 64)
    largest = np.abs(reference_model.run(model, prompts).logits[prompts.real]).max()
    assert_same_choices(found, expected, margins, TOLERANCE * largest)
    if (different := (found != expected).any(1)).any():
        warnings.warn(f"{different.sum()} rows part from transformers at a near-tie", stacklevel=1)


@pytest.mark.parametrize("seed", SEEDS)
def test_bfloat16_is_closer_than_transformers_is(seed):
    """What the policy keeps in float32 pays: less divergence from float64, along the same routes."""
    config = larger()
    batch, tensors = lay_out(config, [[48], [48]], seed), random_tensors(config, seed)
    expected = exact(config, tensors, batch)
    theirs = reference_model.run(reference_model.load(config, tensors, torch.bfloat16), batch, expected.routes).logits
    logits, _ = ours(config, tensors, batch, Execution(dtype="bfloat16"), expected.routes)
    theirs, mine = (divergence(expected.logits[batch.real], x[batch.real]) for x in (theirs, logits))
    print(f"KL from float64: transformers {theirs:.1e}, ours {mine:.1e}")
    assert mine <= theirs


def divergence(p_logits, q_logits):
    p, q = (torch.log_softmax(torch.from_numpy(x), -1) for x in (p_logits, q_logits))
    return float((p.exp() * (p - q)).sum(-1).mean())
