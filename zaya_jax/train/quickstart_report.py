"""What the quickstart keeps of its steps, says and draws."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shlex
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from zaya_jax.data.corpus import Corpus
from zaya_jax.errors import UserError
from zaya_jax.model.weights import count_active_parameters, count_parameters
from zaya_jax.report.plots import Curve, Panel, bar_chart, save_png, smooth, text_plot
from zaya_jax.report.progress import Progress
from zaya_jax.sampling.request import Sampling
from zaya_jax.train.loop import Budget, Done
from zaya_jax.train.trainer import Trainer

BITS = 1 / math.log(2)  # in a nat; a token is a byte, so nats a token become bits a byte
THIS_MODEL = "this model"
_RECENT = 20  # steps


@dataclasses.dataclass
class History:
    """What is drawn.

    Attributes:
        tokens: of a step.
        seconds, bits: of each step, since the beginning and per byte.
        entropy_L: of the load on the experts, of each step.
        looks: seconds and bits per byte of each look at the held-out text.
    """

    tokens: int
    seconds: list[float] = dataclasses.field(default_factory=list)
    bits: list[float] = dataclasses.field(default_factory=list)
    entropy_L: list[np.ndarray] = dataclasses.field(default_factory=list)
    looks: list[tuple[float, float]] = dataclasses.field(default_factory=list)

    def add(self, done: Done) -> None:
        """Takes in a step."""
        self.seconds.append(done.seconds)
        self.bits.append(BITS * float(done.metrics.loss))
        self.entropy_L.append(np.asarray(done.metrics.balance.entropy_L))

    def speed(self) -> float:
        """Tokens a second of the recent steps; NaN after the first."""
        gaps = np.diff(self.seconds[-_RECENT - 1 :])
        return self.tokens / float(np.median(gaps)) if len(gaps) else math.nan

    def figures(self) -> dict[str, str]:
        """What progress shows."""
        return {
            "bits_per_byte": f"{np.mean(self.bits[-_RECENT:]):.2f}",
            "held_out": f"{self.looks[-1][1]:.2f}",
            "tokens_per_s": "-" if math.isnan(self.speed()) else f"{self.speed():,.0f}",
            "step": f"{len(self.bits)}",
        }


def progress(budget: Budget) -> Progress:
    """A bar, or lines, over the budget."""
    return Progress("train", budget.steps, "steps") if budget.steps else Progress("train", budget.seconds, "s")


def record(done: Done, history: History) -> dict[str, Any]:
    """A step's line in metrics.jsonl; the loss is in nats a token."""
    return {
        "step": done.step,
        "seconds": done.seconds,
        "learning_rate": done.learning_rate,
        "loss": done.metrics.loss,
        "gradient_norm": done.metrics.gradient_norm,
        "load_entropy": done.metrics.balance.entropy_L,
        "router_counts": done.metrics.router_counts_LC,
        "held_out_bits_per_byte": history.looks[-1][1],
    }


def header(trainer: Trainer, budget: Budget, corpus: Corpus, rows: int, length: int) -> str:
    """What is about to happen."""
    model, (train, held_out) = trainer.model, corpus
    time = f"{budget.steps:,} steps" if budget.steps else f"about {budget.seconds:.0f} s, compilation included"
    return f"""\
A small ZAYA1: trained from scratch on this machine, saved, loaded back and sampled.

  text      Python's language reference (pydoc_data.topics): {len(train.text):,} bytes on {train.documents} pages
            {len(held_out.text):,} bytes on {held_out.documents} other pages are held out
  model     {count_parameters(model):,} parameters, {count_active_parameters(model):,} of them at work on a token
            {model.num_layers} layers of CCA attention and {model.num_experts} experts; a token is a byte
  training  {time}, on {jax.devices()[0].device_kind}
            optimizer {trainer.optimizer.name}, {trainer.execution.dtype}, {rows} x {length} tokens a step
"""


def results(bits: Mapping[str, float], history: History) -> str:
    """Bits per byte next to the baselines, what training was, and how even the experts' load is."""
    entropy_L = np.mean(history.entropy_L[-_RECENT:], axis=0)
    steps, seconds = len(history.bits), history.seconds
    return f"""
Bits per byte of the held-out text (fewer is better):

{_indented(bar_chart(dict(sorted(bits.items(), key=lambda item: -item[1]))))}

("lzma + training text" may copy from everything that the model was trained on.)

Trained for {seconds[-1]:.0f} s ({seconds[0]:.0f} s of them before the first step was done): \
{steps:,} steps, {steps * history.tokens:,} tokens.
Load on the experts: entropy {entropy_L.mean():.2f} of 1 (even), {entropy_L.min():.2f} in the most uneven layer.
"""


def draw(path: pathlib.Path, bits: Mapping[str, float], history: History) -> str:
    """Draws the curves into a PNG, and in the text that is returned."""
    window = max(len(history.bits) // 40, 1)
    looks = [*history.looks, (history.seconds[-1], bits[THIS_MODEL])]
    curves = [
        Curve(f"training text, mean of {window} steps", history.seconds, smooth(history.bits, window)),
        Curve("held-out text", *zip(*looks), points=True),
    ]
    levels = {name: value for name, value in bits.items() if name not in (THIS_MODEL, "lzma")}
    # The fall from 8 bits to the byte frequencies says little and would flatten all the rest.
    limits = (0.9 * min(bits.values()), 1.05 * max(bits.values()))
    panel = Panel("bits per byte", curves, levels, limits)
    plot = _indented(text_plot(panel))
    return f"{plot}\n          seconds; line: training text, ●: held-out text\n\n{_png(path, panel, history)}"


def exported(model: pathlib.Path, bits: float) -> str:
    """Where the model is, and that it is right."""
    size = sum(file.stat().st_size for file in model.iterdir())
    return f"""\
{"Model:":<8}{model}, {size / 1e6:.1f} MB: weights, configuration, tokenizer and chat template in the Hub's format.
        Loaded back from there: {bits:.4f} bits per byte on the held-out text, as before.
"""


def sample_header(prompt: str, sampling: Sampling, corpus: Corpus) -> str:
    """What comes next is written by the model."""
    known = " (the title of a held-out page)" if prompt.encode() in corpus.held_out.text else ""
    how = f"temperature {sampling.temperature:g}, top-p {sampling.top_p:g}"
    return f"The loaded model continues a prompt{known}, {how}:\n{'─' * 72}"


def next_steps(output: pathlib.Path, model: pathlib.Path, validation: pathlib.Path, length: int, seconds: float) -> str:
    """Commands to go on with, for a model that was trained on windows of `length` tokens."""
    checkpoint = f"--checkpoint={shlex.quote(str(model))}"
    tokens, scores = (shlex.quote(str(path)) for path in (validation, output.with_name(f"{output.name}-logprobs.npy")))
    commands = {
        f"write more (trained on {length} bytes at a time, it loses the thread behind them)": (
            f"generate {checkpoint} --temperature=0.7 --max_new_tokens={length} --prompt='A class is '"
        ),
        "look inside": f"inspect {checkpoint}",
        "log-probability of each held-out byte": (
            f"score {checkpoint} --tokens={tokens} --kind=logprobs --dtype=float32 --output={scores}"
        ),
        "chat (do not expect sense: it has only read a manual)": f"chat {checkpoint}",
    }
    python = _python()
    lines = [f"  # {what}\n  {python} -m experiments.{command}" for what, command in commands.items()]
    return "\n".join(["─" * 72, f"Done in {seconds:.0f} s. Next:\n", *lines])


def _png(path: pathlib.Path, panel: Panel, history: History) -> str:
    entropy_NL = np.stack(history.entropy_L)
    even = Panel(
        "load entropy",
        [
            Curve("mean of layers", history.seconds, entropy_NL.mean(axis=1)),
            Curve("most uneven layer", history.seconds, entropy_NL.min(axis=1)),
        ],
        limits=(0, 1.05),
    )
    try:
        save_png(path, [panel, even], title="A small ZAYA1 on Python's language reference", x_label="seconds")
    except UserError as error:
        return f"Curves: not drawn as a PNG; {error}"
    return f"{'Curves:':<8}{path}"


def _python() -> str:
    """The interpreter that runs this, as one would type it here."""
    if shutil.which("python") == sys.executable:
        return "python"
    path = pathlib.Path(sys.executable)
    here = pathlib.Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _indented(text: str) -> str:
    return "\n".join("  " + line for line in text.split("\n"))
