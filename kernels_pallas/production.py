"""What kernels are compiled and timed in: the models' widths, and a call with its gradients.

(`zaya_jax.model.config` has the presets; kernels stand alone.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax


class Model(NamedTuple):
    """Widths: hidden, expert, number of experts, query heads, key heads, of a head."""

    D: int
    F: int
    E: int
    N: int
    K: int
    H: int


MODELS = {"8b": Model(2048, 2048, 16, 8, 2, 128), "74b": Model(4096, 4096, 24, 16, 2, 128)}


def with_gradients(function: Callable, floating: int) -> Callable:
    """The result, and the gradients of the first `floating` arguments; the cotangent is the result itself."""

    def both(*arguments):
        rest = arguments[floating:]
        out, pull = jax.vjp(lambda *first: function(*first, *rest), *arguments[:floating])
        return out, pull(out)

    return both
