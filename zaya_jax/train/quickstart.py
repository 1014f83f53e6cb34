"""The first thing that a newcomer runs: train a small ZAYA on real text, save it, load it, let it write.

What happens is told on stdout in the order in which it happens; progress goes to stderr.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

from zaya_jax.data.windows import Stream
from zaya_jax.model import Execution, ModelConfig
from zaya_jax.model.config import nano
from zaya_jax.train import loop
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.step import Trainer

BITS = 1 / math.log(2)  # in a nat; a token is a byte, so nats a token become bits a byte


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """What to do.

    Attributes:
        output: directory of what is left behind: model/, metrics.jsonl, loss.png, validation.npy.
        budget: how long to train, compilation included.
        seed: of the initial weights, the windows and the sample.
        prompt: what the trained model continues; its page is held out from training.
        new_tokens: bytes that it writes at most.
        model: the architecture, over the vocabulary of the byte tokenizer.
        execution: how it is computed in training.
        optimizer, balance_rate: see `Trainer`.
        rows, length: windows of a step, and the tokens in each.
        evaluations: looks at the held-out text during training.
    """

    output: pathlib.Path
    budget: loop.Budget = loop.Budget()
    seed: int = 0
    prompt: str = 'The "while" statement\n*********************\n\n'
    new_tokens: int = 400
    model: ModelConfig = dataclasses.field(default_factory=nano)
    execution: Execution = Execution(layout="stacked")
    optimizer: OptimizerConfig = OptimizerConfig()
    balance_rate: float = 3e-3
    rows: int = 32
    length: int = 128
    evaluations: int = 10

    @property
    def trainer(self) -> Trainer:
        """What the steps are made of."""
        return Trainer(self.model, self.execution, self.optimizer, self.balance_rate)


class Text(NamedTuple):
    """Tokens to train on and tokens held out; what the held-out bytes cost without a model, in bits each."""

    train: Stream
    held_out: Stream
    train_bytes: bytes
    held_out_bytes: bytes
    pages: tuple[int, int]  # to train on, held out
    baselines: dict[str, float]


class History(NamedTuple):
    """What is drawn: lists with one entry a step, and one a look at the held-out text."""

    seconds: list[float]
    bits: list[float]
    entropy: list[float]
    looks: list[tuple[float, float]]  # seconds, bits


def run(job: Quickstart, say: Callable[[str], None] = print) -> dict[str, float]:
    """Does everything; returns bits per byte on the held-out text: of "this model" and of each baseline.

    Raises:
        UserError: the output cannot be written, or a value is impossible.
    """
    started = time.monotonic()
    checkpoint = _claim(job.output)
    text = read_text()
    say(_header(job, text))
    state, history = train(job, text, say)
    bits = {"this model": held_out_bits(job, state, text), **text.baselines}
    say(_results(bits, history))
    say(_draw(job, bits, history))
    export(job, state, checkpoint)
    say(check_export(job, state, text, checkpoint))
    say(_sample_header(job))
    write_sample(job, checkpoint)
    say(_next_steps(job, time.monotonic() - started))
    return bits
