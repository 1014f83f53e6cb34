"""The sizes that every phase comes in, and what goes along with a size whatever the phase."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig, Rope, nano, small, zaya1_8b
from zaya_jax.train.config import ExecutionConfig

TOKENS = 2**24  # of a step: the original's 4,096 rows of 4,096 (report, appendix B)
TOKENIZER = "tokenizer"  # a directory; that of `initial` is taken instead where there is one
DEVICE_TOKENS = 2**14  # of a device and microbatch, as docs/plan.md has it


@dataclasses.dataclass(frozen=True)
class Scale:
    """A size.

    Attributes:
        model: its architecture, before a phase sets the rotary base and the longest position.
        tokens: of a step; 0 leaves it to the phase.
        fields: of `RunConfig`, whatever the phase.
        newton_schulz_dtype: of Muon.
    """

    model: Callable[[], ModelConfig]
    tokens: int
    fields: dict[str, Any]
    newton_schulz_dtype: str

    def sized(self, length: int, theta: float) -> ModelConfig:
        """The model for windows of this length, with this rotary base."""
        return dataclasses.replace(self.model(), full_rope=Rope(theta), max_position_embeddings=length)

    def settings(self, initial: str) -> dict[str, Any]:
        """`fields`, with the tokenizer of the model that the run begins with."""
        own = self.fields["tokenizer"] != TOKENIZER
        return self.fields | ({"tokenizer": initial} if initial and not own else {})


_ON_GPUS = {
    "tokenizer": TOKENIZER,
    "loss_chunk": 1024,
    "execution": ExecutionConfig(dtype="bfloat16", remat="block"),
    "export_dtype": "bfloat16",
}
SCALES = {
    # 1.9M parameters, bytes as tokens: minutes on a laptop.
    "nano": Scale(nano, 0, {"tokenizer": "bytes"}, "exact"),
    # 0.67B parameters, the released tokenizer: a GPU, or a node.
    "small": Scale(small, 2**20, _ON_GPUS, "bfloat16"),
    # ZAYA1-8B.
    "8b": Scale(zaya1_8b, TOKENS, _ON_GPUS, "bfloat16"),
}


def scale(given: Any) -> Scale:
    """The size that stands behind the colon. With runlocal it is nano's model, on bytes, with all else as it is.

    Raises:
        UserError: there is no such scale.
    """
    if given.scale not in SCALES:
        expected = ", ".join(SCALES)
        raise mistake("unknown scale", where="--config=...:scale", expected=expected, found=given.scale)
    found = SCALES[given.scale]
    if not given.runlocal:
        return found
    return dataclasses.replace(found, model=nano, tokens=0, fields=found.fields | {"tokenizer": "bytes"})


def batch(tokens: int, length: int, devices: int, context: int = 1) -> dict[str, int]:
    """`rows` and `accumulate` of a step of so many tokens: about 16,384 of them on a device at a time.

    Raises:
        UserError: so many devices cannot share them evenly.
    """
    shards = max(devices // context, 1)
    rows = shards * max(DEVICE_TOKENS * context // length, 1)
    if tokens % (rows * length):
        expected = f"a number of them that divides a step of {tokens:,} tokens, a power of two"
        raise mistake("a step does not divide", where="--config=...:devices", expected=expected, found=devices)
    return {"rows": rows, "accumulate": tokens // (rows * length)}
