"""Text for a small run: what is trained on, what is held out, and what the held-out part costs without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from zaya_jax.data.baselines import lzma_bits, unigram_bits, zlib_bits
from zaya_jax.data.windows import Stream, join_documents


class Part(NamedTuple):
    """Documents as text and as tokens.

    Attributes:
        documents: how many.
        text: all of them, UTF-8.
        stream: their tokens, with whatever the tokenizer puts around each.
    """

    documents: int
    text: bytes
    stream: Stream


class Corpus(NamedTuple):
    """Documents to train on and documents held out."""

    train: Part
    held_out: Part


def make_corpus(
    train: Mapping[str, str], held_out: Mapping[str, str], encode: Callable[[str], Sequence[int]]
) -> Corpus:
    """A corpus of documents by name; `encode` gives the token ids of one."""
    return Corpus(_part(train, encode), _part(held_out, encode))


def baselines(corpus: Corpus) -> dict[str, float]:
    """What the held-out text costs without a neural model, by name, in bits a byte."""
    text, given = corpus.held_out.text, corpus.train.text
    return {
        "byte frequencies": unigram_bits(text, given),
        "zlib": zlib_bits(text),
        "lzma": lzma_bits(text),
        "lzma + training text": lzma_bits(text, given),
    }


def _part(documents: Mapping[str, str], encode: Callable[[str], Sequence[int]]) -> Part:
    texts = list(documents.values())
    return Part(len(texts), "".join(texts).encode(), join_documents([encode(text) for text in texts]))
