"""How far the engine that samples and the trainer that learns agree, token by token (ZAYA1's report, IV-E).

Measured at equal weight versions it tells numerics alone; between versions it holds the drift of the policy as well.
The report's target in bfloat16: KL at most 1.3e-4 and a Pearson correlation above 0.9996.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from zaya_jax.errors import mistake


@dataclasses.dataclass(frozen=True)
class Parity:
    """A comparison.

    Attributes:
        tokens: how many were compared.
        max_delta: the largest |log p of the trainer - log p of the engine|, nats.
        kl: mean K3, an estimate of KL(engine || trainer) in nats a token.
        pearson: correlation of the probabilities of the sampled tokens; None where it is not defined, for want of
            tokens or of variation.
        route_flips: layers and tokens in which the two chose different experts; None if routes were not compared.
        routes: how many were compared; None likewise.
    """

    tokens: int
    max_delta: float
    kl: float
    pearson: float | None
    route_flips: int | None = None
    routes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields, for a log; what JSON has no number for is None."""
        fields = dataclasses.asdict(self)
        return {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in fields.items()}


def compare(
    engine_BT: Any, trainer_BT: Any, mask_BT: Any, engine_routes_LBT: Any = None, trainer_routes_LBT: Any = None
) -> Parity:
    """Compares log-probabilities of the same sampled tokens, in float64, and expert choices if both are given.

    Args:
        engine_BT, trainer_BT: log-probabilities.
        mask_BT: not 0 for the tokens that are compared.
        engine_routes_LBT, trainer_routes_LBT: as in `route_flips`.

    Raises:
        UserError: shapes differ.
    """
    engine_BT, trainer_BT = np.asarray(engine_BT, np.float64), np.asarray(trainer_BT, np.float64)
    real_BT = np.asarray(mask_BT) != 0
    _same_shapes("log-probabilities", engine_BT, trainer_BT, real_BT)
    engine, trainer = engine_BT[real_BT], trainer_BT[real_BT]
    delta = trainer - engine
    found = Parity(
        tokens=delta.size,
        max_delta=float(np.abs(delta).max(initial=0)),
        kl=float(np.mean(np.expm1(delta) - delta)) if delta.size else 0.0,
        pearson=pearson(np.exp(engine), np.exp(trainer)),
    )
    if engine_routes_LBT is None or trainer_routes_LBT is None:
        return found
    flips, routes = route_flips(engine_routes_LBT, trainer_routes_LBT)
    return dataclasses.replace(found, route_flips=flips, routes=routes)


def route_flips(engine_LBT: Any, trainer_LBT: Any) -> tuple[int, int]:
    """How many expert choices differ, and of how many: those that both made.

    Args:
        engine_LBT, trainer_LBT: expert ids, int8; -1 where none was chosen or recorded (padding, an open route).

    Raises:
        UserError: shapes differ.
    """
    engine_LBT, trainer_LBT = np.asarray(engine_LBT), np.asarray(trainer_LBT)
    _same_shapes("routes", engine_LBT, trainer_LBT)
    both = (engine_LBT >= 0) & (trainer_LBT >= 0)
    return int(np.sum(both & (engine_LBT != trainer_LBT))), int(np.sum(both))


def pearson(x_N: np.ndarray, y_N: np.ndarray) -> float | None:
    """Pearson's correlation coefficient; None for fewer than two values, or if one of the two does not vary."""
    if x_N.size < 2 or np.all(x_N == x_N[0]) or np.all(y_N == y_N[0]):
        return None
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    return float(np.sum(x_N * y_N) / np.sqrt(np.sum(x_N**2) * np.sum(y_N**2)))


def _same_shapes(what: str, *arrays: np.ndarray) -> None:
    shapes = [array.shape for array in arrays]
    if len(set(shapes)) > 1:
        raise mistake(f"{what} of different shapes", expected="one shape", found=", ".join(map(str, shapes)))
