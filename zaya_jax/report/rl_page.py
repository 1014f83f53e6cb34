"""The page of runs of reinforcement learning, and the part of a page that is about one."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from zaya_jax.report import html, rl_curves
from zaya_jax.report.html import Html, tag
from zaya_jax.report.rl_facts import agreement, facts, held_out_rows
from zaya_jax.report.rl_run import RlRun, read_rl_run, shown
from zaya_jax.report.training_facts import NONE, flat

MOST_WARNINGS = 50


def write_rl_report(workdirs: Sequence[pathlib.Path | str], output: pathlib.Path | str) -> pathlib.Path:
    """Reads runs, also of those that are under way, and writes their page; gives the file.

    Raises:
        UserError: metrics cannot be read, or the page not be written.
    """
    return html.write_page(output, rl_page([read_rl_run(workdir) for workdir in workdirs]))


def rl_page(runs: Sequence[RlRun]) -> str:
    """The page. It holds what it needs, and depends on nothing but the runs."""
    title = f"Reinforcement learning: {runs[0].name}" if len(runs) == 1 else f"Reinforcement learning: {len(runs)} runs"
    body = [summary(runs)] if len(runs) > 1 else []
    body += [html.section(run.name if len(runs) > 1 else "The run", *run_parts(run)) for run in runs]
    return html.page(title, body)


def summary(runs: Sequence[RlRun]) -> Html:
    """A line a run."""
    rows = [(run.name, *facts(run).values()) for run in runs]
    return html.section("All runs", html.table(["run", *facts(runs[0])], rows, kind="numbers"))


def run_parts(run: RlRun) -> Iterator[Html]:
    """What there is to say of a run: figures, warnings, curves, held-out problems, configuration."""
    told = {name: value for name, value in {**facts(run), **agreement(run)}.items() if value != NONE}
    yield tag("div", html.tiles(told), class_="card changes")
    if not len(run.steps["step"]):
        yield tag("p", "No step recorded yet.", class_="note")
    yield _warnings(run)
    for group in rl_curves.groups(run):
        note = tag("p", group.note, class_="note") if group.note else ""
        # Legends hide what they name in their own group alone: elsewhere a colour means something else.
        charts = tag("div", *group.figures, class_=f"charts {'small' if group.small else 'three'}", data_scope=True)
        yield tag("section", tag("h3", group.title, class_="group"), note, charts)
    yield _held_out(run)
    yield _starts(run)
    yield _configuration(run)


def _warnings(run: RlRun) -> Html:
    rows = [(_step(record), str(record.get("text", ""))) for record in run.warnings]
    if not rows:
        return Html("")
    shown = html.table(["step", "warning"], rows[-MOST_WARNINGS:], kind="list")
    return html.details(f"Warnings: {len(rows):,}", shown, is_open=True)


def _held_out(run: RlRun) -> Html:
    rows = held_out_rows(run)
    if not rows:
        return Html("")
    head = [
        "environment",
        "difficulty",
        "mean, first look",
        "mean, last look",
        "change",
        "solved, first",
        "solved, last",
    ]
    asked = run.config.get("held_out")
    count = asked if isinstance(asked, dict) else {}
    each = f"{count.get('problems')} problems of each, {count.get('answers')} answers to a problem. " if count else ""
    caption = f"Held-out problems. {each}Mean: of all answers. Solved: problems that an answer of theirs solves."
    return html.table(head, rows, caption=caption, kind="numbers")


def _starts(run: RlRun) -> Html:
    rows = [
        (shown(str(record.get("environment"))), str(record.get("value")), str(record.get("groups")))
        for record in run.found
    ]
    if not rows:
        return Html("")
    return html.details("Start difficulties", html.table(["environment", "difficulty", "groups asked"], rows))


def _configuration(run: RlRun) -> Html:
    rows = list(flat(run.config))
    return html.details("Configuration", html.table(["setting", "value"], rows, kind="words")) if rows else Html("")


def _step(record: Any) -> str:
    step = record.get("step")
    return f"{step:,}" if isinstance(step, int) else "–"
