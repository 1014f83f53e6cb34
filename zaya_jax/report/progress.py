"""Progress of long work: a live bar on a terminal, a plain line every few seconds in a file or a pipe."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from tqdm import tqdm

_REDRAW = 0.2  # seconds

Figure = float | int | str


class Progress:
    """Shows how far a piece of work has come; a context manager.

        with Progress("train", total=90, unit="s") as progress:
            progress.show(12.5, loss=2.31, tokens_per_s=9800)

    Args:
        label: what is being done, in a word or two.
        total: how much there is to do, above 0.
        unit: of `total`, e.g. "s" or "tokens".
        every: seconds between two lines where there is no terminal.
        stream: where to; stderr by default, so that results on stdout stay clean.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        label: str,
        total: float,
        unit: str = "",
        *,
        every: float = 10.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        stream = sys.stderr if stream is None else stream
        self._label, self._total, self._unit = label, total, unit
        self._stream, self._clock = stream, clock
        self._bar = _make_bar(label, total, stream) if stream.isatty() else None
        self._every = every if self._bar is None else _REDRAW
        self._started = self._told = clock()
        self._untold = ""

    def show(self, done: float, **figures: Figure) -> None:
        """Tells the position, from 0 to the total, and figures by name ("_" is shown as a space, "_per_" as "/")."""
        done = min(done, self._total)
        self._untold = describe(done, self._total, self._unit, figures)
        if self._bar is not None:
            self._bar.n = done
        if self._clock() - self._told >= self._every:
            self._tell()

    def say(self, line: str) -> None:
        """Shows a line of its own, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Shows the last position, if it has not been shown, and ends the bar."""
        if self._untold:
            self._tell()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _tell(self) -> None:
        self._told = self._clock()
        if self._bar is not None:
            self._bar.ncols = _columns(self._stream)
            self._bar.set_description_str(self._untold)
        else:
            elapsed = f"{self._told - self._started:4.0f} s"
            print(f"{self._label} {elapsed} | {self._untold}", file=self._stream, flush=True)
        self._untold = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None:
            self._untold = ""  # the error is the last line
        self.close()


def describe(done: float, total: float, unit: str, figures: Mapping[str, Figure]) -> str:
    """Position and figures in words: `34 of 90 s, loss 2.31, 9,800 tokens/s` without what a bar shows anyway."""
    position = f"{done:,.0f} of {total:,.0f} {unit}".rstrip()
    return ", ".join([position, *(f"{_readable(name)} {_short(value)}" for name, value in figures.items())])


def eta(done: float, total: float, seconds: float, since: float = 0) -> float | None:
    """Seconds until everything is done, if the rest goes as fast as what was done in `seconds` from `since` on.

    Where a resumed run began, or where the steps behind the compilation begin, makes a good `since`.
    None as long as nothing has been done.
    """
    if done <= since or seconds <= 0:
        return None
    return max(total - done, 0) * seconds / (done - since)


def duration(seconds: float | None) -> str:
    """Seconds in the two units that a reader needs: `8 s`, `12 min 05 s`, `3 h 20 min`, `11 d 04 h`; `-` for None."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    whole = round(seconds)
    for size, unit, part, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part:02d} {smaller}"
    return f"{whole} s"


MFU_FORMULA = "MFU = tokens/s × FLOPs/token ÷ (devices × peak FLOP/s of a device)"


def mfu(tokens_per_s: float, flops_per_token: float, devices: int, peak_flops_per_device: float | None) -> float | None:
    """Model FLOPs utilisation: the share of the devices' peak that the model's own arithmetic uses.

        MFU = tokens_per_s * flops_per_token / (devices * peak_flops_per_device)

    FLOPs per token are those of the forward and the backward pass by the model's definition (PaLM, appendix B):
    work that is repeated to save memory does not count. None if the peak is not known, as for a CPU.

    Args:
        tokens_per_s: of all devices together.
        flops_per_token: forward and backward, a multiplication and an addition being two.
        devices: how many take part.
        peak_flops_per_device: FLOP/s in the arithmetic that is used, dense.
    """
    if not peak_flops_per_device:
        return None
    return tokens_per_s * flops_per_token / (devices * peak_flops_per_device)


def training_figures(
    loss: float, tokens_per_s: float | None, mfu: float | None, seconds_left: float | None
) -> dict[str, str]:
    """What training shows next to its position; without MFU where no peak is known."""
    speed = "-" if tokens_per_s is None or not math.isfinite(tokens_per_s) else f"{tokens_per_s:,.0f}"
    figures = {"loss": f"{loss:.4f}", "tokens_per_s": speed}
    if mfu is not None:
        figures["MFU"] = f"{100 * mfu:.1f} %"
    return {**figures, "ETA": duration(seconds_left)}


def _readable(name: str) -> str:
    return name.replace("_per_", "/").replace("_", " ")


def _short(value: Figure) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.3g}"


def _make_bar(label: str, total: float, stream: TextIO) -> tqdm:
    layout = label + " {percentage:3.0f}% |{bar:20}| {desc}"
    # Asked for the size itself, tqdm shows nothing on a terminal that has none (a container's, a recorder's).
    return tqdm(total=total, bar_format=layout, file=stream, ncols=_columns(stream), nrows=20, leave=True)


def _columns(stream: TextIO) -> int:
    """How much of a line can be written to without a break."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return columns - 1 if columns > 1 else 119
