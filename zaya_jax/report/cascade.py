"""The page of a cascade: all stages in a table, and a part for each; also of one that is under way."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zaya_jax.errors import mistake
from zaya_jax.report import html, training_curves
from zaya_jax.report.cascade_search import HEAD, search_rows
from zaya_jax.report.html import Html, tag
from zaya_jax.report.progress import duration
from zaya_jax.report.rl_facts import change, ends, facts, of_steps
from zaya_jax.report.rl_page import run_parts
from zaya_jax.report.rl_run import read_rl_run
from zaya_jax.report.runs import FILE, read_run
from zaya_jax.report.training_facts import NONE, last
from zaya_jax.report.training_facts import facts as training_facts

PLAN, PAGE, SCHEMA = "stages.json", "report.html", 1
Record = Mapping[str, Any]
_FIELDS = {"name": str, "title": str, "kind": str, "workdir": str, "command": str}
_SUMMARY = ("steps", "time in steps", "tokens drawn", "reward", "score", "held out", "warnings")


def write_cascade(workdir: pathlib.Path | str, output: pathlib.Path | str | None = None) -> pathlib.Path:
    """Reads a cascade's directory and writes its page, report.html there by default; gives the file.

    Raises:
        UserError: it is none's, a stage's metrics cannot be read, or the page not be written.
    """
    workdir = pathlib.Path(workdir)
    return html.write_page(output or workdir / PAGE, cascade_page(read_plan(workdir), workdir.resolve().name))


def read_plan(workdir: pathlib.Path) -> list[Record]:
    """The stages that `stages.json` names, in order; their directories, which it has relative to its own, as paths.

    Raises:
        UserError: there is none, or it is of another version.
    """
    path = workdir / PLAN
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fix = "give the --workdir of a cascade"
        raise mistake(
            "is not a cascade's directory", where=workdir, found=f"{PLAN}: {error.strerror}", fix=fix
        ) from None
    except ValueError:
        raise mistake("is not JSON", where=path) from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not isinstance(found.get("stages"), list):
        raise mistake("not a cascade's stages", where=path, expected=f'{{"schema": {SCHEMA}, "stages": [...]}}')
    for number, stage in enumerate(found["stages"]):
        for name, kind in _FIELDS.items():
            if not isinstance(stage, dict) or not isinstance(stage.get(name), kind):
                raise mistake("a stage without its field", where=f"{path}, stage {number}", expected=name)
    return [{**stage, "workdir": workdir / stage["workdir"]} for stage in found["stages"]]


def cascade_page(stages: Sequence[Record], name: str) -> str:
    """The page of all stages that have begun. It holds what it needs, and opens without a network."""
    shown = [stage for stage in stages if stage["kind"] != "data" and _begun(stage)]
    body = [_summary(stages), _searches(shown)]
    body += [tag("div", html.section(stage["title"], *_parts(stage)), id=stage["name"]) for stage in shown
             if stage["kind"] != "search"]  # fmt: skip
    return html.page(f"Cascade: {name}", [part for part in [*body, _commands(stages)] if part])


def _begun(stage: Record) -> bool:
    workdir, searched = stage["workdir"], stage["kind"] == "search"
    return any(workdir.glob("*/settings.json")) if searched else (workdir / FILE).is_file()


def _summary(stages: Sequence[Record]) -> Html:
    """A line a stage of those that learn."""
    rows = [_row(stage) for stage in stages if stage["kind"] in ("training", "rl", "reward")]
    note = (
        "Rewards and held-out accuracies are of the first steps and of the last. Rewards are at the difficulties of "
        "their time, which move. Of training by examples the held-out loss is given."
    )
    return html.section("All stages", html.table(["stage", *_SUMMARY], rows, kind="numbers"), note=note)


def _row(stage: Record) -> tuple[Any, ...]:
    if not _begun(stage):
        return (stage["title"], *([NONE] * len(_SUMMARY)))
    told = facts(read_rl_run(stage["workdir"])) if stage["kind"] == "rl" else _trained(stage)
    return (tag("a", stage["title"], href=f"#{stage['name']}"), *(told.get(name, NONE) for name in _SUMMARY))


def _trained(stage: Record) -> dict[str, str]:
    run = read_run(stage["workdir"])
    losses = [change(*ends(losses, 1), "nats") for _, losses, _ in run.evaluations().values()]
    if not len(run.steps["step"]):
        return {}
    steps = of_steps(last(run, "step"), run.start.get("config"))
    return {"steps": steps, "time in steps": duration(last(run, "elapsed")), "held out": ", ".join(losses) or NONE}


def _parts(stage: Record) -> Iterator[Html]:
    if stage["kind"] == "rl":
        yield from run_parts(read_rl_run(stage["workdir"]))
        return
    run = read_run(stage["workdir"])
    yield tag("div", html.tiles(training_facts(run).tiles), class_="card")
    yield from _pairs(stage)
    for title, _, figures in training_curves.groups([run]):
        if title == "Loss":
            yield tag("div", *figures, class_="charts", data_scope=True)


def _pairs(stage: Record) -> Iterator[Html]:
    """Of a reward model that is trained: how it ranks pairs that it has not seen."""
    path = stage["workdir"] / "pairs.json"
    if stage["kind"] != "reward" or not path.is_file():
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = [(name, f"{one['pairs']:,}", f"{one['accuracy']:.1%}") for name, one in found.items()]
    yield html.table(["held-out pairs", "how many", "ranked right"], rows, kind="numbers")


def _searches(stages: Sequence[Record]) -> Html | None:
    """Markovian RSA before and after, beside each other."""
    rows = [row for stage in stages if stage["kind"] == "search" for row in search_rows(stage)]
    if not rows:
        return None
    note = (
        "Round 0 draws candidates, each later one reads tails of those of the round before. Mean: of all candidates of "
        "a round. Majority: problems whose most frequent answer in the end is right."
    )
    return html.section("Markovian RSA before and after", html.table(HEAD, rows, kind="numbers"), note=note)


def _commands(stages: Sequence[Record]) -> Html:
    rows = [(stage["name"], tag("code", stage["command"])) for stage in stages]
    shown = html.table(["stage", "command"], rows, kind="list")
    return html.section("Commands", html.details(f"The {len(rows)} commands of this cascade", shown))
