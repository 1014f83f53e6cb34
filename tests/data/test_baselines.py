"""What text costs without a neural model, on texts whose cost is known."""

import lzma
import random
import zlib

import pytest

from zaya_jax.data.baselines import lzma_bits, unigram_bits, zlib_bits
from zaya_jax.data.corpus import baselines, make_corpus

NOISE = random.Random(0).randbytes(4000)


def test_unigram_without_counts_is_eight_bits():
    assert unigram_bits(b"anything", b"") == 8


def test_unigram_by_hand():
    # (3 + 1) / (4 + 256) for "a", (0 + 1) / 260 for "z"
    assert unigram_bits(b"az", b"aaab") == pytest.approx((6.0223678 + 8.0223678) / 2)


def test_zlib_counts_what_decompresses_to_the_text():
    text = b"the same words again and " * 40
    size = round(zlib_bits(text) * len(text) / 8)
    assert zlib.decompress(zlib.compress(text, 9)) == text
    assert size == len(zlib.compress(text, 9)) < 0.1 * len(text)


def test_noise_does_not_compress_but_for_who_knows_it():
    assert lzma_bits(NOISE) > 8
    assert lzma_bits(NOISE, given=NOISE) < 0.5
    assert lzma_bits(NOISE, given=b"something else") > 8
    assert lzma.decompress(lzma.compress(NOISE)) == NOISE


def test_corpus_keeps_text_and_tokens_of_both_parts():
    corpus = make_corpus({"a": "xyzé", "b": "y"}, {"c": "zz"}, lambda text: [1, *text.encode(), 2])
    assert (corpus.train.documents, corpus.train.text) == (2, "xyzéy".encode())
    assert corpus.train.stream.tokens.tolist() == [1, *"xyzé".encode(), 2, 1, ord("y"), 2]
    assert corpus.train.stream.documents.tolist() == [1] * 7 + [2] * 3
    assert corpus.held_out.stream.tokens.tolist() == [1, 122, 122, 2]


def test_baselines_are_of_the_held_out_text():
    known = NOISE.decode("latin-1").encode()
    corpus = make_corpus({"a": NOISE.decode("latin-1")}, {"b": NOISE.decode("latin-1")}, lambda text: [0])
    found = baselines(corpus)
    assert found["zlib"] == zlib_bits(known) > 5
    assert found["lzma + training text"] < 0.5 < found["lzma"]
    assert found["byte frequencies"] == pytest.approx(unigram_bits(known, known))
