"""Who can see whom, by gradient: exactly zero where a token must see nothing, and not zero where it must see.

Every token of a row has an id of its own, so that the gradient of an embedding row is the influence of one token. The
head is left out: it is tied to the embedding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model.helpers import EXACT, FULL, LAYOUTS, SLIDING, Batch, lay_out, quick_jit, random_variables, small
from zaya_jax.model import Execution, Zaya, init_cache

pytestmark = pytest.mark.usefixtures("x64")

T = 12


def distinct(batch: Batch) -> Batch:
    tokens = np.stack([np.random.RandomState(b).permutation(T) for b in range(len(batch.tokens))])
    return Batch(tokens.astype(np.int32), batch.positions, batch.segments)


@functools.lru_cache(maxsize=16)
def influence_function(config, execution, with_cache):
    def seen(embedding, variables, tokens, positions, segments):
        variables = {"params": variables["params"] | {"embedding": embedding}, "balance": variables["balance"]}
        cache = init_cache(config, execution, 1, 0) if with_cache else None
        out = Zaya(config, execution).apply(variables, tokens, positions, segments, cache=cache, logits="none")
        return jnp.tanh(out.hidden_BTD[0]).sum(-1)

    return quick_jit(jax.jacrev(seen))


def influence(config, batch, execution=EXACT, with_cache=False):
    """[T, T]: how much the hidden state of a token (row) depends on the embedding of another (column)."""
    variables = random_variables(config, execution)
    function = influence_function(config, execution, with_cache)
    jacobian = function(variables["params"]["embedding"], variables, *batch)  # [T, V, D]
    return np.abs(np.asarray(jacobian)).sum(-1)[:, batch.tokens[0]]


def expected(segments, reach=T):
    """Visible: the same document, not later, not farther than `reach`."""
    distance = np.arange(T)[:, None] - np.arange(T)[None]
    same = (segments[:, None] == segments[None]) & (segments != 0)[None]
    return same & (distance >= 0) & (distance <= reach)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "row", [[T], [4, 5, 3], [1, 1, 6, -2, 2], [-3, 4, -1, 4], [-5, 7], [7, -5]], ids=lambda row: "_".join(map(str, row))
)
def test_a_token_sees_its_own_document_up_to_itself(row, layout):
    config = small((FULL, FULL))
    batch = distinct(lay_out(config, [row]))
    found = influence(config, batch, Execution(dtype="float64", layout=layout))
    real = batch.real[0]
    np.testing.assert_array_equal((found != 0)[real], expected(batch.segments[0])[real])


@pytest.mark.parametrize("row", [[-5, 7], [-2, 7, -3]], ids=["left", "both"])
def test_with_a_cache_too(row):
    config = small((FULL, FULL))
    batch = distinct(lay_out(config, [row]))
    found, real = influence(config, batch, with_cache=True), batch.real[0]
    np.testing.assert_array_equal((found != 0)[real], expected(batch.segments[0])[real])


@pytest.mark.parametrize(
    "layers, window", [(1, 2), (2, 3), *(pytest.param(*case, marks=pytest.mark.slow) for case in [(1, 3), (2, 2)])]
)
def test_a_sliding_layer_reaches_as_far_as_its_window_and_its_convolutions(layers, window):
    """The oldest key in the window stands for its own token and, through two convolutions, for two before it.

    (Under a window of one the softmax is constant: keys, and so the convolutions, have no influence at all.)
    """
    config = small((SLIDING,) * layers, sliding_window=window)
    batch = distinct(lay_out(config, [[T]]))
    reach = layers * (window - 1 + 2)
    np.testing.assert_array_equal(influence(config, batch) != 0, expected(batch.segments[0], reach))
