"""Prompts put together as `tails.assemble` does, by itself: a program of its own, from tails on the host."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import numpy as np

from zaya_jax.sampling.tails import Tails, assemble

run_assemble = functools.partial(jax.jit, static_argnames="width")(assemble)


def make_tails(tails: Sequence[np.ndarray], tau: int) -> Tails:
    """The last `tau` tokens of each, as arrays of one shape."""
    tokens_NX = np.zeros((len(tails), tau), np.int32)
    kept = [tail[max(len(tail) - tau, 0) :] for tail in tails]
    for row, tail in zip(tokens_NX, kept, strict=True):
        row[: len(tail)] = tail
    return Tails(tokens_NX, np.array([len(tail) for tail in kept], np.int32))
