"""Writes the goldens of `tests/model/test_goldens.py` with transformers: python -m tests.parity.make_goldens

The weights are not in the files: `random_tensors` draws them from a seed. A checksum tells if it ever draws others.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from tests.model.helpers import Batch, lay_out, random_tensors
from tests.parity.cases import CASES, Case

FOLDER = Path(__file__).parent / "goldens"
GENERATED = 64  # tokens
SEED = 11


def checksum(tensors: dict[str, np.ndarray]) -> float:
    """Differs when any value of any tensor does, beyond the last bit."""
    return sum(
        float(np.abs((1 + value.astype(np.float64)) * np.arange(1, value.size + 1).reshape(value.shape)).mean())
        for value in tensors.values()
    )


def golden(case: Case) -> dict[str, np.ndarray]:
    """Everything in one file."""
    from tests.parity import reference_model

    batch = lay_out(case.config, case.rows, SEED)
    tensors = random_tensors(case.config, SEED)
    model = reference_model.load(case.config, tensors)
    found = reference_model.run(model, batch)
    arrays = {
        "config": np.array(json.dumps(dataclasses.asdict(case.config))),
        "seed": np.array(SEED),
        "checksum": np.array(checksum(tensors)),
        "tokens": batch.tokens,
        "positions": batch.positions,
        "segments": batch.segments,
        "logits": found.logits[batch.real].astype(np.float32),
        "routes": found.routes[:, batch.real].astype(np.int8),
    }
    if is_left_padded(batch):
        generated, margins = reference_model.generate(model, batch.tokens, batch.real, GENERATED)
        arrays |= {"generated": generated.astype(np.int16), "margins": margins.astype(np.float32)}
    return arrays


def is_left_padded(batch: Batch) -> bool:
    """What generation can continue: every row's last token is real."""
    return bool(batch.real[:, -1].all())


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, case in CASES.items():
        arrays = golden(case)
        np.savez_compressed(FOLDER / f"{name}.npz", **arrays)
        margin = f", closest choice {arrays['margins'].min():.1e}" if "margins" in arrays else ""
        print(f"{name}: max |logit| {np.abs(arrays['logits']).max():.2f}{margin}")


if __name__ == "__main__":
    main()
