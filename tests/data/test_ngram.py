"""The n-gram baseline against fractions: by hand, and by its definition over dictionaries."""

from collections import Counter
from fractions import Fraction
from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.data.ngram import START, fit, ngram_bits

DOCUMENTS = st.lists(st.text("abc", max_size=12).map(str.encode), min_size=1, max_size=5).filter(any)


def by_definition(train, order, context, byte):
    """Interpolated Kneser-Ney, written as it is told."""
    grams = Counter()
    for document in train:
        symbols = [START] * (order - 1) + list(document)
        grams.update(tuple(symbols[i : i + order]) for i in range(len(document)))

    def probability(grams, context):
        once, twice = (sum(count == n for count in grams.values()) for n in (1, 2))
        discount = Fraction(once, once + 2 * twice) if once else Fraction(1, 2)
        behind = {gram[-1]: count for gram, count in grams.items() if gram[:-1] == context}
        lower = Fraction(1, 256)
        if context:
            lower = probability(Counter(gram[1:] for gram in grams), context[1:])
        if not behind:
            return lower
        own = max(behind.get(byte, 0) - discount, 0)
        return (own + discount * len(behind) * lower) / sum(behind.values())

    return probability(grams, tuple(context))


def key(symbols):
    return sum(symbol * 257**place for place, symbol in enumerate(reversed(symbols)))


def test_by_hand():
    """Bigrams: a after the start 3 times, a after a once, b after a twice, so D = 1/3. Of one byte: a has two
    contexts, b one, so D = 1/3 there as well."""
    rest = Fraction(1, 3) * 2 / 3 / 256
    a, b = Fraction(5, 9) + rest, Fraction(2, 9) + rest
    a_first, b_after_a = Fraction(8, 9) + a / 9, Fraction(5, 9) + Fraction(2, 9) * b
    bits = ngram_bits([b"ab"], [b"aa", b"ab", b"ab"], order=2)
    assert bits == pytest.approx(-(log2(a_first) + log2(b_after_a)) / 2, abs=1e-12)


@given(DOCUMENTS, st.integers(1, 5), st.data())
def test_it_is_kneser_ney(train, order, data):
    context = data.draw(st.lists(st.sampled_from(b"abcd"), min_size=order - 1, max_size=order - 1))
    starts = data.draw(st.integers(0, order - 1))
    context[:starts] = [START] * starts
    byte = data.draw(st.sampled_from(b"abcd"))
    (found,) = fit(train, order).probabilities(np.array([key([*context, byte])]))
    assert found == pytest.approx(float(by_definition(train, order, context, byte)), rel=1e-12)


@given(DOCUMENTS, st.lists(st.sampled_from(b"abcd"), min_size=4, max_size=4))
def test_the_256_probabilities_sum_to_one(train, context):
    found = fit(train).probabilities(np.array([key([*context, byte]) for byte in range(256)]))
    assert found.min() > 0 and found.sum() == pytest.approx(1, abs=1e-12)


def test_bits_are_those_of_the_bytes_in_their_documents():
    train, held_out = [b"abcabcabd", b"bca"], [b"abc", b"", b"cab"]
    expected = []
    for document in held_out:
        symbols = [START] * 4 + list(document)
        expected += [-log2(by_definition(train, 5, symbols[i : i + 4], symbols[i + 4])) for i in range(len(document))]
    assert ngram_bits(held_out, train) == pytest.approx(sum(expected) / len(expected), rel=1e-12)


def test_noise_costs_eight_bits_and_what_repeats_nearly_none():
    noise = np.random.default_rng(0).bytes(40_000)
    assert 8 <= ngram_bits([noise[:20_000]], [noise[20_000:]]) < 8.5
    assert ngram_bits([b"abcdefgh" * 100], [b"abcdefgh" * 1000]) < 0.05
