"""The report of training runs: one page that compares them."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from zaya_jax.report import html, training_curves
from zaya_jax.report.axes import short
from zaya_jax.report.charts import swatch
from zaya_jax.report.html import Html, join, tag
from zaya_jax.report.progress import MFU_FORMULA, duration
from zaya_jax.report.runs import Run, number, read_runs
from zaya_jax.report.training_facts import NONE, differences, facts, flat, hardware, moment

MOST_ROWS = 200  # of a list
MOST_SAMPLES = 40
MOST_LETTERS = 3000  # of a sample


def write_report(
    workdirs: Sequence[pathlib.Path | str], output: pathlib.Path | str, png: bool = False
) -> list[pathlib.Path]:
    """Reads runs and writes their page, and the main curves as PNGs beside it; gives the files.

    Raises:
        UserError: metrics cannot be read, matplotlib (extra `plot`) is missing, or a file cannot be written.
    """
    runs = read_runs(workdirs)
    output = pathlib.Path(output)
    pictures = training_curves.save_pngs(runs, output) if png else []
    return [html.write_page(output, training_page(runs)), *pictures]


def training_page(runs: Sequence[Run]) -> str:
    """The page. It holds what it needs, and depends on nothing but the runs."""
    names = [run.name for run in runs]
    title = f"Training: {names[0]}" if len(runs) == 1 else f"Training: {len(runs)} runs"
    return html.page(title, [part for part in _parts(runs) if part], lead=join(names, " · ") if len(runs) > 1 else "")


def _parts(runs: Sequence[Run]) -> Iterable[Html | None]:
    yield tag("div", *(_card(i, run) for i, run in enumerate(runs)), class_="cards")
    yield _facts(runs)
    yield _differences(runs)
    for title, note, figures in training_curves.groups(runs):
        yield html.section(title, tag("div", *figures, class_="charts"), note=note)
    yield _incidents(runs)
    yield _samples(runs)
    yield _checkpoints(runs)
    yield _configurations(runs)
    yield _left_out(runs)


def _card(place: int, run: Run) -> Html:
    start = run.start
    size, began = start.get("parameters"), run.listed["start"][:1]
    about = [
        f"{short(number(size))} parameters" if size else "",
        hardware(start).strip(NONE),
        f"began {moment(began[0].get('time'))}" if began else "no start recorded",
    ]
    lead = tag("p", ", ".join(filter(None, about)))
    empty = "" if len(run.steps["step"]) else tag("p", "No training step recorded yet.")
    return tag("article", tag("h2", swatch(place), run.name), lead, empty, html.tiles(facts(run).tiles), class_="card")


_MFU = (
    f"{MFU_FORMULA}. FLOPs/token: forward and backward pass by the model's definition; work that is repeated to save "
    "memory does not count."
)


def _facts(runs: Sequence[Run]) -> Html:
    every = [facts(run).rows for run in runs]
    keys = dict.fromkeys(key for rows in every for key in rows)
    rows = [(key, *(rows.get(key, NONE) for rows in every)) for key in keys]
    rows = [row for row in rows if set(row[1:]) != {NONE}]
    return html.section("Key figures", html.table(_head(runs, "figure"), rows, kind="words"), note=_MFU)


def _differences(runs: Sequence[Run]) -> Html | None:
    if len(runs) < 2:
        return None
    rows = differences(runs)
    same = tag("p", "The configurations are the same.", class_="note")
    return html.section("What differs", html.table(_head(runs, "setting"), rows, kind="words") if rows else same)


def _incidents(runs: Sequence[Run]) -> Html | None:
    spikes = [_spike(run, record) for run in runs for record in run.listed["spike"]]
    events = [_event(run, record) for run in runs for record in run.listed["event"]]
    events += [_resumption(run, record) for run in runs for record in run.listed["start"]
               if record.get("resumed_from") is not None]  # fmt: skip
    parts = [
        _list("Loss spikes", ["run", "step", "loss", "usual loss", "examples of the batch"], spikes),
        _list("Events", ["run", "step", "what"], events),
    ]
    return html.section("Events and loss spikes", *parts) if spikes or events else None


def _spike(run: Run, record: Mapping[str, Any]) -> tuple[str, ...]:
    loss, usual = (_digits(record.get(name)) for name in ("loss", "usual"))
    return run.name, f"{record['step']:,}", loss, usual, _ids(record.get("examples"))


def _event(run: Run, record: Mapping[str, Any]) -> tuple[str, ...]:
    return run.name, f"{record['step']:,}", str(record.get("what", ""))


def _resumption(run: Run, record: Mapping[str, Any]) -> tuple[str, ...]:
    what = f"resumed on {hardware(record)}, {moment(record.get('time'))}"
    return run.name, f"{record['resumed_from']:,}", what


def _samples(runs: Sequence[Run]) -> Html | None:
    parts = [_of_run(run, _sample, "sample", MOST_SAMPLES) for run in runs if run.listed["sample"]]
    note = "What the model wrote during training, the latest first; the prompt is coloured."
    return html.section("Samples", *parts, note=note) if parts else None


def _of_run(run: Run, show: Callable[[Any], Html], kind: str, most: int) -> Html:
    records = run.listed[kind]
    chosen = [records[i] for i in sorted({round(i) for i in np.linspace(0, len(records) - 1, min(most, len(records)))})]
    counted = f"{len(records):,}" if len(chosen) == len(records) else f"{len(chosen)} of {len(records):,}"
    shown = [show(record) for record in reversed(chosen)]
    older = html.details(f"{len(shown) - 2} earlier ones", *shown[2:]) if len(shown) > 2 else ""
    return html.details(f"{run.name}: {counted}", *shown[:2], older, is_open=True)


def _sample(record: Any) -> Html:
    whole = str(record.get("text", ""))
    cut = f" … and {len(whole) - MOST_LETTERS:,} more characters" if len(whole) > MOST_LETTERS else ""
    prompt = str(record.get("prompt", ""))[:MOST_LETTERS]
    body = tag("pre", tag("b", prompt), whole[:MOST_LETTERS], cut)
    return tag("div", tag("p", f"step {record['step']:,}"), body, class_="sample")


def _checkpoints(runs: Sequence[Run]) -> Html | None:
    rows = [(run.name, f"{record['step']:,}", _time(number(record.get("seconds")))) for run in runs
            for record in run.listed["checkpoint"]]  # fmt: skip
    return html.section("Checkpoints", _list("All", ["run", "step", "time to write"], rows)) if rows else None


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else duration(seconds)


def _configurations(runs: Sequence[Run]) -> Html | None:
    parts = []
    for run in runs:
        rows = list(flat(run.start.get("config")))
        if rows:
            parts.append(html.details(run.name, html.table(["setting", "value"], rows, kind="words")))
    return html.section("Configuration", *parts) if parts else None


def _left_out(runs: Sequence[Run]) -> Html | None:
    unknown = [f"{run.name}: {count:,} of kind {kind}" for run in runs for kind, count in run.unknown.items()]
    return tag("p", "Records left out: ", join(unknown, "; "), class_="note") if unknown else None


def _list(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    if not rows:
        return Html("")
    shown = rows[-MOST_ROWS:]
    cut = f", the last {MOST_ROWS} of them" if len(shown) < len(rows) else ""
    return html.details(f"{title}: {len(rows):,}{cut}", html.table(head, shown, kind="list"), is_open=len(rows) <= 12)


def _head(runs: Sequence[Run], first: str) -> list[Any]:
    return [first, *(join([swatch(i), run.name]) for i, run in enumerate(runs))]


def _digits(value: Any) -> str:
    return f"{value:.4f}" if value is not None else NONE


def _ids(examples: Any) -> str:
    ids = [str(example) for example in examples] if isinstance(examples, list) else []
    more = f" and {len(ids) - 8} more" if len(ids) > 8 else ""
    return ", ".join(ids[:8]) + more
