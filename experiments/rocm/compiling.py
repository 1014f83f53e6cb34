"""Compiling all programs, one after the other: the judgement of each, the page, the committed figures."""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
from collections.abc import Iterable

import jax

from experiments.rocm import checks, page
from experiments.rocm.figures import Figures, drift, measure
from experiments.rocm.programs import CONFIG, PROGRAMS, Program, lower
from experiments.rocm.topology import MEMORY
from zaya_jax.errors import mistake
from zaya_jax.sampling.files import replacement

_PACKAGES = ("jax", "jaxlib", "jax-rocm7-pjrt", "jax-rocm7-plugin")


def run(names: Iterable[str], output: str, committed: str, update: bool, keep: str | None) -> int:
    """Compiles the programs of these names (all of them: none given) and prints a line each; the exit code.

    Args:
        output: the page, written if all programs were compiled and nothing is wrong, or by `update`.
        committed: JSON that figures are compared with; written anew by `update`.
        keep: a directory for the compiled programs' text.
    """
    programs = [_known(name) for name in names] or list(PROGRAMS.values())
    before = {} if update else _read(pathlib.Path(committed))
    found: dict[Program, Figures] = {}
    failures = 0
    for program in programs:
        wrong = _one(program, found, None if update else before.get(program.name), update, keep)
        failures += len(wrong)
        print(*(f"  FAIL {line}\n" for line in wrong), sep="", end="", flush=True)
    if set(found) == set(PROGRAMS.values()) and (update or not failures):
        versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
        _write(output, page.page(CONFIG, found, versions, committed, MEMORY))
        if update:
            figures = {program.name: figures.to_json() for program, figures in found.items()}
            _write(committed, json.dumps(figures, indent=1) + "\n")
    print(f"{len(found)} of {len(programs)} compiled, {failures} failures. Nothing here has run on an MI300X.")
    return 1 if failures else 0


def _one(program: Program, found: dict, before: dict | None, update: bool, keep: str | None) -> list[str]:
    """Compiles and judges one; what is wrong."""
    print(f"{program.name:<26}", end=" ", flush=True)
    try:
        figures, text = measure(lower(program))
    except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError) as error:
        print()
        return [f"is not compiled: {' '.join(str(error).split())[:300]}"]
    found[program] = figures
    if keep:
        _write(f"{keep}/{program.name}.hlo", text)
    sizes = (f"{what} {size / 1e9:.2f}" for what, size in (("temporary", figures.temporary), ("peak", figures.peak)))
    counts = {"kernels": figures.kernels, "library calls": figures.library_calls, "collectives": figures.collectives}
    numbers = (f"{sum(count.values())} {what}" for what, count in counts.items())
    print(f"{figures.seconds:5.1f} s ", ", ".join([*sizes]), "GB;", ", ".join(numbers))
    wrong = checks.problems(CONFIG, program, figures, text, MEMORY)
    return wrong if update else wrong + drift(figures.to_json(), before)


def _known(name: str) -> Program:
    if name not in PROGRAMS:
        raise mistake("unknown program", where="--programs", expected=", ".join(PROGRAMS), found=name)
    return PROGRAMS[name]


def _read(path: pathlib.Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or str(error)
        raise mistake("no committed figures", where=path, found=found, fix="--update writes them") from None


def _write(path: str, text: str) -> None:
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacement(target) as beside:
        beside.write_text(text, encoding="utf-8")
