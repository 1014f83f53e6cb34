"""The CCA mix: the fast path next to the definition, and both next to a few facts of its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_pallas.cca import CCAWeights, cca_mix
from tests.kernels.compare import (
    assert_as_exact_as_the_definition,
    assert_close_in_bfloat16,
    assert_same_function,
    quick_jit,
)


@functools.cache
def mix(implementation):
    def run(u, state, follows, cos, sin, weights):
        return cca_mix(u, state, follows, cos, sin, weights, implementation=implementation)

    return run


@functools.cache
def compiled(implementation):
    """As one program: run operation by operation, each would be compiled by itself."""
    return quick_jit(mix(implementation))


FAST, DEFINITION = mix("xla"), mix("reference")
# (B, T, N, K, H, R): R is half of the rotated width
SHAPES = {
    "8:1": (2, 7, 8, 1, 4, 1),
    "4:1": (1, 13, 8, 2, 8, 2),
    "four key heads": (3, 5, 4, 4, 6, 3),
    "one token": (4, 1, 2, 1, 8, 2),
}


def example(shape, seed=0):
    """Arguments, with about every third token beginning something new, and cotangents."""
    B, T, N, K, H, R = shape
    random = np.random.RandomState(seed)
    U = (N + K) * H
    angles = random.uniform(0, 6, (B, T, R))
    weights = CCAWeights(
        random.standard_normal((U, 1, 2)),
        random.standard_normal(U),
        random.standard_normal((U, H, 2)) / np.sqrt(2 * H),
        random.standard_normal(U),
        random.uniform(0.8, 3, K),
    )
    arguments = {
        "u": random.standard_normal((B, T, U)),
        "state": random.standard_normal((B, 2, U)),
        "follows": (random.uniform(size=(B, T)) > 0.3) & (np.arange(T) > 0),
        "cos": np.cos(angles),
        "sin": np.sin(angles),
        "weights": weights,
    }
    cotangents = (random.standard_normal((B, T, N, H)), random.standard_normal((B, T, K, H)))
    return arguments, cotangents


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_same_function(shape, x64):
    assert_same_function(FAST, DEFINITION, *example(shape))


@settings(max_examples=25)
@given(st.lists(st.booleans(), min_size=13, max_size=13), st.integers(0, 99))
def test_same_function_wherever_documents_begin(follows, seed):
    with jax.enable_x64(True):
        arguments, cotangents = example(SHAPES["4:1"], seed)
        arguments["follows"] = np.array([follows]) & (np.arange(13) > 0)
        assert_same_function(FAST, DEFINITION, arguments, cotangents)


def test_as_exact_as_the_definition():
    assert_as_exact_as_the_definition(FAST, DEFINITION, *example((2, 33, 8, 2, 16, 4)))


def test_bfloat16():
    """State and angles stay exact, as the model has them."""
    arguments, cotangents = example((2, 33, 8, 2, 16, 4))
    kept = {name: np.float32(arguments[name]) for name in ("state", "cos", "sin")}
    found = assert_close_in_bfloat16(FAST, DEFINITION, arguments, cotangents, also=lambda a: {**a, **kept})
    assert {a.dtype for a in found[0]} == {np.dtype(jnp.bfloat16)}


@functools.cache
def whole(implementation, seed=0):
    arguments, _ = example((1, 9, 4, 2, 6, 1), seed)
    arguments["follows"] = (np.arange(9) > 0)[None]
    return arguments, compiled(implementation)(**arguments)


@pytest.mark.parametrize("implementation", ["xla", "reference", "interpret"])
@pytest.mark.parametrize("cut", [1, 2, 5])
def test_state_continues_a_sequence(cut, implementation, x64):
    """The last two inputs before a cut are all that the rest needs; with one token, one comes from the older state."""
    arguments, expected = whole(implementation)
    seen = np.concatenate([arguments["state"], arguments["u"]], axis=1)
    rest = {name: arguments[name][:, cut:] for name in ("u", "follows", "cos", "sin")}
    rest["follows"] = rest["follows"] & (np.arange(9 - cut) > 0)
    found = compiled(implementation)(**rest, state=seen[:, cut : cut + 2], weights=arguments["weights"])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b[:, cut:], atol=1e-12)


@pytest.mark.parametrize("implementation", ["xla", "reference", "interpret"])
def test_lengths_and_temperature(implementation, x64):
    """Queries have length sqrt(H), keys that times their temperature as it is; rotation keeps lengths."""
    arguments, (q, k) = whole(implementation)
    H, temperature = q.shape[-1], arguments["weights"].temperature
    np.testing.assert_allclose(np.linalg.norm(q, axis=-1), H**0.5, rtol=1e-12)
    np.testing.assert_allclose(
        np.linalg.norm(k, axis=-1), np.broadcast_to(temperature * H**0.5, k.shape[:-1]), rtol=1e-12
    )


@pytest.mark.parametrize("implementation", ["xla", "reference", "interpret"])
def test_before_the_first_token_lies_the_bias(implementation, x64):
    """Zeros go in before the first convolution only: the second one sees the first one's bias, not zero."""
    arguments, _ = example((1, 1, 2, 1, 4, 1))
    w = arguments["weights"]
    arguments |= {"state": np.zeros((1, 2, 12)), "cos": np.ones((1, 1, 1)), "sin": np.zeros((1, 1, 1))}
    u = arguments["u"][0, 0]
    d = w.depthwise_weight[:, 0, 1] * u + w.depthwise_bias
    taps = w.grouped_weight[:4]  # the first query head
    y = taps[..., 0] @ w.depthwise_bias[:4] + taps[..., 1] @ d[:4] + w.grouped_bias[:4] + (u[:4] + u[8:]) / 2
    q, _ = compiled(implementation)(**arguments)
    np.testing.assert_allclose(q[0, 0, 0], 2 * y / np.linalg.norm(y), rtol=1e-12)


@pytest.mark.parametrize("implementation", ["xla", "reference", "interpret"])
def test_zeros_give_zeros_and_finite_gradients(implementation):
    """What pads are made of: no length to divide by."""
    arguments, cotangents = example((1, 3, 2, 1, 4, 1))
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, jnp.float32), arguments)
    nothing |= {"follows": arguments["follows"], "cos": jnp.ones((1, 3, 1)), "sin": jnp.zeros((1, 3, 1))}

    def total(u):
        q, k = mix(implementation)(**nothing | {"u": u})
        return (q * cotangents[0]).sum() + (k * cotangents[1]).sum()

    value, gradient = quick_jit(jax.value_and_grad(total))(nothing["u"])
    assert value == 0 and np.isfinite(gradient).all()


WRONG = {
    "state_B2U": {"state": np.zeros((1, 3, 36))},
    "follows_BT": {"follows": np.zeros((9, 1), bool)},
    "cos_BTR": {"cos": np.zeros((1, 8, 1))},
    "grouped_weight": {
        "u": np.zeros((1, 9, 35)),
        "state": np.zeros((1, 2, 35)),
        "weights": {"depthwise_weight": np.zeros((35, 1, 2))},
    },
    "depthwise_weight": {"weights": {"depthwise_weight": np.zeros((36, 2))}},
    "temperatures": {"weights": {"temperature": np.zeros(4)}},
}


@pytest.mark.parametrize("blamed", WRONG)
def test_wrong_shapes_are_named(blamed):
    arguments, _ = example((1, 9, 4, 2, 6, 1))
    changes = dict(WRONG[blamed])
    weights = arguments["weights"]._replace(**changes.pop("weights", {}))
    with pytest.raises(ValueError, match=f"cca_mix: .*{blamed}"):
        FAST(**arguments | changes | {"weights": weights})


def test_unknown_implementations_are_named():
    with pytest.raises(ValueError, match="cca_mix: unknown implementation 'fast'"):
        mix("fast")(**example(SHAPES["one token"])[0])
