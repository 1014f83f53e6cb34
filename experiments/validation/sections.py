"""The sections of `validate`, and the two files that they end in."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import platform
import time
from collections.abc import Iterator
from typing import Any

from experiments.validation import checks
from zaya_jax.errors import mistake
from zaya_jax.sampling.files import replacement

SECTIONS = {
    "machine": checks.machine,
    "kernels": checks.kernels,
    "model": checks.model_on_kernels,
    "parity": checks.goldens,
    "training": checks.training,
    "decoding": checks.decoding,
    "benchmark": checks.benchmark,
}


@dataclasses.dataclass
class Report:
    """What every section found, in the order that they ran."""

    sections: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return any(row["outcome"] == "FAIL" for section in self.sections.values() for row in section["rows"])

    def write(self, directory: pathlib.Path) -> list[pathlib.Path]:
        """validation.json and validation.md, each whole or not at all."""
        texts = {"validation.json": json.dumps(self.sections, indent=1) + "\n", "validation.md": self._markdown()}
        for name, text in texts.items():
            with replacement(directory / name) as beside:
                beside.write_text(text, encoding="utf-8")
        return [directory / name for name in texts]

    def _markdown(self) -> str:
        parts = ["# Validation of zaya_jax", f"{time.strftime('%Y-%m-%d %H:%M')}, {platform.platform()}"]
        for name, section in self.sections.items():
            parts.append(f"## {name} ({section['seconds']:.0f} s)")
            cells = [f"| {row['outcome']} | {row['what']} |" for row in section["rows"]]
            parts.append("\n".join(["| | |", "|---|---|", *cells]))
            parts += [section["text"]] if section["text"] else []
        return "\n\n".join(parts) + "\n"


def check(sections: list[str], directory: pathlib.Path) -> None:
    """Refuses names that do not exist, and makes the directory: before minutes of checks, not behind them."""
    for name in sections:
        if name not in SECTIONS:
            raise mistake("unknown name", where="--sections", expected=", ".join(SECTIONS), found=name)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        where = f"--output={directory}"
        raise mistake("no place for the reports", where=where, expected="a directory", found=error.strerror) from None


def run(name: str, report: Report, repeats: int) -> Iterator[str]:
    """Runs a section, notes what it found, and yields it line by line. What breaks it is a FAIL of its own."""
    start, section = time.monotonic(), {"rows": [], "text": "", "data": None, "seconds": 0.0}
    report.sections[name] = section
    yield f"== {name}"
    try:
        for found in SECTIONS[name](repeats):
            section["data"] = found.data or section["data"]
            section["text"] = found.text or section["text"]
            section["rows"].append({"outcome": found.outcome, "what": found.what})
            yield f"{found.outcome:<8} {found.what}" + (f"\n{found.text}" if found.text else "")
    except Exception as error:  # whatever it is: the other sections, and the report of this one, are wanted
        what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        section["rows"].append({"outcome": "FAIL", "what": what})
        yield f"{'FAIL':<8} {what}"
    section["seconds"] = round(time.monotonic() - start, 1)
