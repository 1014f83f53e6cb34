"""What a check found, in a line: fine, or what to do about it."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Literal

WIDTH = 100  # columns of what is printed


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of a check.

    Attributes:
        level: "OK"; "WARN", which works but should be known; "FAIL", which does not work.
        text: what was found.
        advice: what to do about it.
    """

    level: Literal["OK", "WARN", "FAIL"]
    text: str
    advice: str = ""

    def __str__(self) -> str:
        """`WARN  what was found -> what to do`, broken at 100 columns."""
        line = self.text + (f" -> {self.advice}" if self.advice else "")
        indent = {"initial_indent": f"{self.level:<6}", "subsequent_indent": " " * 6}
        return textwrap.fill(line, WIDTH, break_long_words=False, break_on_hyphens=False, **indent)
