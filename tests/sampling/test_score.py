"""Scores against whole forward passes, in every way of cutting them into pieces."""

import numpy as np
import pytest

from tests.sampling.models import CONFIG, forward, log_softmax, prompt, tiny
from zaya_jax.errors import UserError
from zaya_jax.sampling import score as scoring
from zaya_jax.sampling.score import score

LENGTHS = [11, 1, 6, 11, 3]


@pytest.fixture(params=["left", "right"])
def ragged(request):
    """Tokens and mask [5, 11], padded with ids that are none."""
    tokens = np.full((5, 11), -100)
    for row, length in zip(tokens, LENGTHS):
        place = slice(11 - length, None) if request.param == "left" else slice(length)
        row[place] = prompt(length)
    return tokens, (tokens >= 0).astype(np.int64)


@pytest.fixture
def small_pieces(monkeypatch):
    """Two rows and four columns at a time: both cuts leave a rest."""
    monkeypatch.setattr(scoring, "_TOKENS", 22)
    monkeypatch.setattr(scoring, "_LOGITS", 2 * 4 * CONFIG.vocab_size)


@pytest.mark.parametrize("pieces", [True, False])
def test_logits(ragged, pieces, request):
    if pieces:
        request.getfixturevalue("small_pieces")
    tokens, mask = ragged
    result = score(*tiny(), tokens, mask)
    assert (result.shape, result.dtype) == ((5, 11, CONFIG.vocab_size), np.float32)
    assert (result[mask == 0] == 0).all()
    for row, row_mask, found in zip(tokens, mask, result):
        expected, _ = forward(*tiny(), row[row_mask == 1])
        np.testing.assert_allclose(found[row_mask == 1], expected, atol=2e-5)


@pytest.mark.parametrize("pieces", [True, False])
def test_logprobs(ragged, pieces, request):
    if pieces:
        request.getfixturevalue("small_pieces")
    tokens, mask = ragged
    seen = []
    result = score(*tiny(), tokens, mask, kind="logprobs", progress=lambda *now: seen.append(now))
    assert (result.shape, result.dtype) == ((5, 10), np.float32)
    assert seen == ([(2, 5), (4, 5), (5, 5)] if pieces else [(5, 5)])
    for row, row_mask, found in zip(tokens, mask, result):
        text = row[row_mask == 1]
        expected = log_softmax(forward(*tiny(), text)[0][:-1])[np.arange(len(text) - 1), text[1:]]
        inside = (row_mask[1:] * row_mask[:-1]) == 1
        np.testing.assert_allclose(found[inside], expected, atol=1e-5)
        assert (found[~inside] == 0).all()


def test_both_layouts_agree(ragged):
    np.testing.assert_allclose(score(*tiny("stacked"), *ragged), score(*tiny(), *ragged), atol=2e-5)


def test_without_a_mask_everything_counts():
    tokens = np.array([prompt(11), prompt(11, 1)], np.uint16)
    np.testing.assert_array_equal(score(*tiny(), tokens), score(*tiny(), tokens, np.ones((2, 11), bool)))


def test_one_token_has_no_next():
    assert score(*tiny(), np.array([[5]]), kind="logprobs").shape == (1, 0)


def test_the_result_is_written_where_asked():
    out = np.full((1, 10), 9, np.float32)
    assert score(*tiny(), np.array([prompt(11)]), kind="logprobs", out=out) is out
    assert (out < 0).all()
    with pytest.raises(UserError, match=r"out: wrong shape; expected float32\[1, 9\]; found float32\[1, 10\]"):
        score(*tiny(), np.array([prompt(10)]), kind="logprobs", out=out)


GOOD = np.array([prompt(4), prompt(4, 1)])


@pytest.mark.parametrize(
    ("tokens", "mask", "message"),
    [
        (GOOD.astype(float), None, "tokens: not token ids; expected integers; found float64"),
        (GOOD.astype(bool), None, "tokens: not token ids; expected integers; found bool"),
        (GOOD[0], None, "tokens: wrong number of dimensions; expected [rows, tokens]; found [4]"),
        (GOOD[:, :0], None, "tokens: no tokens; expected at least one; found [2, 0]"),
        (GOOD + 260, None, "tokens: token id outside of the vocabulary; expected 0 to 271; found"),
        (np.array([[1, 2], [3, 272]]), None, "expected 0 to 271; found 272 at [1, 1]"),
        (np.array([[1, -2]]), None, "expected 0 to 271; found -2 at [0, 1]"),
        (np.zeros((1, 129), int), None, "rows longer than the context; expected at most 128 tokens; found 129"),
        (GOOD, np.ones((2, 5)), "mask: wrong shape; expected [2, 4]; found [2, 5]"),
        (GOOD, np.ones((4,)), "mask: wrong shape; expected [2, 4]; found [4]"),
        (GOOD, np.full((2, 4), 0.5), "mask: not a mask; expected 1 for tokens and 0 for padding; found 0.5"),
        (
            GOOD,
            np.array([[1, 1, 1, 1], [0, 0, 0, 0]]),
            "mask, row 1: a row is all padding; expected at least one token",
        ),
        (GOOD, np.array([[1, 1, 1, 1], [1, 0, 0, 1]]), "mask, row 1: padding among the tokens"),
    ],
)
def test_mistakes(tokens, mask, message):
    with pytest.raises(UserError) as caught:
        score(*tiny(), tokens, mask)
    assert message in str(caught.value)
