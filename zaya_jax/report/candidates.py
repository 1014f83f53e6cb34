"""The page of a Markovian RSA run: what every round drew, from what, and how the answers converged.

    write_page("run.html", candidates_page(*read_run("out/rsa")))

Round 0 draws N candidates for a problem; each of the T rounds behind it draws N more, prompted with the problem and the
tails of C candidates of the round before (ZAYA1 report, VI-A). The page shows these populations as columns of cards.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from zaya_jax.report import html
from zaya_jax.report.axes import short
from zaya_jax.report.candidates_graph import NONE, chip, color, draw, judged, whole
from zaya_jax.report.candidates_run import (
    CARRIED,
    SPENT,
    Problem,
    Record,
    arrange,
    letter,
    mean,
    read_run,
    spent,
    thinking_cut,
)
from zaya_jax.report.candidates_text import find_limit, isolated, readable, shortened, trace
from zaya_jax.report.html import Html, join, tag
from zaya_jax.report.progress import duration

__all__ = ["candidates_page", "read_run", "write_candidates"]

_SETTINGS = {"n": "N", "c": "C", "t": "T", "beta": "β", "tau": "τ", "answer_budget": "answer budget",
             "parents": "parents", "compaction": "carried", "temperature": "temperature", "top_p": "top-p",
             "seed": "seed", "dtype": ""}  # fmt: skip
_SPENT_NOTE = (
    "Of the problems that are finished. Generated: drawn for candidates. Prefilled: tokens of prompts that were read. "
    "Reused: those whose state was there already. Carried: tokens of prompts, read or reused, that are tails of the "
    "round before; not added. Probed: drawn to see what a candidate would have answered."
)


def write_candidates(directory: pathlib.Path | str, output: pathlib.Path | str) -> pathlib.Path:
    """Reads a run and writes its page; gives the file.

    Raises:
        UserError: the run cannot be read, or the page not be written.
    """
    return html.write_page(output, candidates_page(*read_run(directory)))


def candidates_page(settings: Record, problems: Sequence[Record], candidates: Sequence[Record]) -> str:
    """The page of a run, whole or still going on. It holds what it needs, and opens without a network.

    Args:
        settings: n, c, t, beta, tau and what else the run was given.
        problems: what was found for each problem; one that is still worked on may be missing.
        candidates: in any order; those not there yet are shown as missing.
    """
    run = arrange(settings, problems, candidates)
    texts = [str(record.get(name) or "") for record in candidates for name in ("thinking", "answer")]
    limit = find_limit([*texts, *(str(record.get("prompt") or "") for record in problems)])
    checkpoint = readable(pathlib.Path(str(settings.get("checkpoint") or "")).name)
    title = f"Markovian RSA: {checkpoint}" if checkpoint else "Markovian RSA"
    return html.page(title, [part for part in _parts(run, limit) if part], lead=_lead(settings), kind="candidates")


def _parts(run: Sequence[Problem], limit: int) -> Iterator[Html | None]:
    yield _unfinished(run)
    yield tag("div", html.tiles(_totals(run)), class_="card totals")
    yield _rounds(run)
    yield _spent(run)
    yield _index(run)
    note = ("A card is a candidate; its lines come from those whose tails it read. Point at one, or go there with Tab "
            "and the arrow keys, to see its parents and descendants; open it to read it. The same letter and colour is "
            "the same answer; votes count answers that are written alike.")  # fmt: skip
    yield html.section("Problems", *(_problem(problem, limit) for problem in run), note=note) if run else None


def _lead(settings: Record) -> Html:
    given = [(name, _setting(settings[key])) for key, name in _SETTINGS.items() if settings.get(key) is not None]
    probes = [("tails", "probed")] if settings.get("probe_answers") else []
    words = [join([f"{name} " if name else "", _short(value)]) for name, value in [*given, *probes]]
    # Each with the dot behind it, so that no line begins with one.
    spans = [tag("span", word, " ·" if place < len(words) else "") for place, word in enumerate(words, 1)]
    return join(spans, " ") or Html("The settings are not known.")


def _setting(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value >= 1000 else str(value)


def _unfinished(run: Sequence[Problem]) -> Html | None:
    """What is not there, in a sentence; None for a whole run."""
    if not run:
        return tag("p", "No problem and no candidate is recorded yet.", class_="notice")
    done, expected = _count(run)
    open_ = sum(not problem.record for problem in run)
    said = [f"{expected - done:,} of {expected:,} candidates are not there" if done < expected else "",
            f"{open_} of {len(run)} problems {'has' if open_ == 1 else 'have'} no result" if open_ else ""]  # fmt: skip
    lacks = " and ".join(filter(None, said))
    return tag("p", f"Unfinished: {lacks}. The run goes on, or was interrupted.", class_="notice") if lacks else None


def _totals(run: Sequence[Problem]) -> dict[str, str]:
    done, expected = _count(run)
    tokens = sum(candidate.get("tokens") or 0 for candidate in _every(run))
    last = len(run[0].rounds) - 1 if run else 0
    final = _verdicts(run, "final")
    return {
        "problems": f"{len(run):,}",
        "candidates": f"{done:,}" if done == expected else f"{done:,} of {expected:,}",
        "tokens generated": short(tokens) if tokens >= 1e4 else whole(tokens),
        f"mean accuracy, round {last}": _share(mean([problem.record.get("mean") for problem in run])),
        "majority accuracy": _share(_verdicts(run, "majority")),
        **({"final accuracy": _share(final)} if math.isfinite(final) else {}),
    }


def _count(run: Sequence[Problem]) -> tuple[int, int]:
    """Candidates that are there, and those of the whole run."""
    slots = [candidate for problem in run for population in problem.rounds for candidate in population]
    return sum(candidate is not None for candidate in slots), len(slots)


def _every(run: Sequence[Problem], number: int | None = None) -> list[Record]:
    """All candidates, or those of a round."""
    return [candidate for problem in run for i in range(len(problem.rounds)) if number in (None, i)
            for candidate in problem.there(i)]  # fmt: skip


def _verdicts(run: Sequence[Problem], name: str) -> float:
    return mean([(problem.record.get(name) or {}).get("correct") for problem in run])


def _share(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else NONE


def _rounds(run: Sequence[Problem]) -> Html | None:
    if not run:
        return None
    seconds = {number: row["seconds"] for number, row in spent(run).items() if row["seconds"]}
    rows = [(f"round {number}", *_round(run, number), duration(seconds[number]) if number in seconds else NONE)
            for number in range(len(run[0].rounds))]  # fmt: skip
    head = ["", "candidates", "correct", "agreement", "different answers", "tokens a candidate", "thinking cut",
            "log p", "time"]  # fmt: skip
    note = ("Correct: of the candidates that were judged. Agreement: how many give the most frequent answer of their "
            "problem and round; different answers: a problem; log p: mean log-probability of a token.")  # fmt: skip
    return html.section("Round by round", html.table(head, rows, kind="numbers"), note=note)


def _round(run: Sequence[Problem], number: int) -> Iterator[str]:
    there = _every(run, number)
    correct = [candidate["correct"] for candidate in there if candidate.get("correct") is not None]
    votes = [problem.votes(number) for problem in run if problem.there(number)]
    tops = [max((n for answer, n in counted.items() if answer is not None), default=0) for counted in votes]
    yield f"{len(there):,}"
    yield f"{_share(mean(correct))} ({sum(correct):,} of {len(correct):,})" if correct else NONE
    yield _share(sum(tops) / len(there)) if there else NONE
    yield f"{mean([len(set(counted) - {None}) for counted in votes]):.1f}" if votes else NONE
    yield whole(mean([candidate.get("tokens") for candidate in there]))
    yield _share(mean([thinking_cut(candidate) for candidate in there]))
    log_p = mean([candidate.get("logprob") for candidate in there])
    yield f"{log_p:.3f}".replace("-", "−") if math.isfinite(log_p) else NONE


def _spent(run: Sequence[Problem]) -> Html | None:
    rows = spent(run)
    if not rows:
        return html.section("Tokens by round", tag("p", "No problem is finished yet.", class_="note")) if run else None
    kinds = [name for name in SPENT if any(row[name] for row in rows.values())]
    added = [name for name in kinds if name != CARRIED]  # which is a part of what prompts hold
    most = max(sum(row[name] for name in added) for row in rows.values()) or 1
    keys = [tag("i", class_=f"key s-{name}") if name in added else "" for name in kinds]
    head = ["", *(join(pair) for pair in zip(keys, kinds)), "all", ""]
    lines = [(f"round {number}", *(whole(row[name]) for name in kinds), whole(sum(row[name] for name in added)),
              _bar({name: row[name] for name in added}, most)) for number, row in rows.items()]  # fmt: skip
    return html.section("Tokens by round", html.table(head, lines, kind="numbers bars"), note=_SPENT_NOTE)


def _bar(row: dict[str, float], most: float) -> Html:
    parts = [tag("i", class_=f"s-{name}", style=f"width:{100 * value / most:.2f}%", title=f"{name}: {value:,.0f}")
             for name, value in row.items() if value]  # fmt: skip
    return tag("span", *parts, class_="bar", role="img", aria_label=", ".join(f"{k} {v:,.0f}" for k, v in row.items()))


def _index(run: Sequence[Problem]) -> Html | None:
    if not run:
        return None
    head = ["problem", "answers by round", "candidates correct", "majority", "final", "reference"]
    note = "Bars: the answers of each round, most frequent first, in the colours of the problem's answers."
    return html.section("Answers", html.table(head, map(_row, run), kind="index"), note=note)


def _row(problem: Problem) -> list[Any]:
    numbers = range(len(problem.rounds))
    name = tag("a", _short(problem.id), href=f"#p{problem.place}")
    strips = tag(
        "span", *(_strip(problem, number) for number in numbers), class_="strips", style=f"--rounds:{len(numbers)}"
    )
    correct = " → ".join(_correct(problem, number) for number in numbers)
    return [name, strips, correct, _choice(problem, "majority"), _choice(problem, "final"), _gold(problem)]


def _strip(problem: Problem, number: int) -> Html:
    """The answers of a round as shares of a bar."""
    votes = problem.votes(number)
    ranked = [(answer, votes[answer]) for answer in (*problem.answers, None) if votes[answer]]
    parts = [tag("i", _name(problem, answer), class_=color(problem, answer), style=f"flex-grow:{count}")
             for answer, count in ranked]  # fmt: skip
    lacks = len(problem.rounds[number]) - votes.total()
    rest = [tag("i", class_="absent", style=f"flex-grow:{lacks}")] if lacks else []
    words = ", ".join(f"{_name(problem, answer)} {count}" for answer, count in ranked) or "nothing yet"
    return tag("span", *parts, *rest, class_="strip", role="img", aria_label=f"round {number}: {words}",
               title=f"round {number}: {words}")  # fmt: skip


def _name(problem: Problem, answer: str | None) -> str:
    return NONE if answer is None else letter(problem.answers.index(answer))


def _correct(problem: Problem, number: int) -> str:
    known = [candidate["correct"] for candidate in problem.there(number) if candidate.get("correct") is not None]
    return f"{sum(known)}/{len(known)}" if known else NONE


def _choice(problem: Problem, name: str) -> Html:
    """The majority's or the final answer and its judgement."""
    choice = problem.record.get(name)
    if not choice:
        return tag("span", NONE)
    answer = str(choice.get("answer") or "").strip() or None
    shown = chip(problem, answer) if answer is None or answer in problem.answers else _short(answer)
    count = choice.get("votes")
    votes = "" if count is None else tag("span", f"{count:,} vote{'s' * (count != 1)}", class_="votes")
    return tag("span", shown, votes, judged(choice.get("correct")), class_="choice")


def _gold(problem: Problem) -> Any:
    gold = problem.record.get("gold")
    return NONE if gold is None else _short(gold)


def _short(value: Any) -> Html:
    return tag("bdi", shortened(value, 60))


def _problem(problem: Problem, limit: int) -> Html:
    last = len(problem.rounds) - 1
    summary = join([tag("b", isolated(problem.id)), *_summary(problem, last)])
    return tag("details", tag("summary", summary), tag("div", *_inside(problem, limit), id=f"p{problem.place}"),
               class_="problem", open=True if problem.place == 0 else None)  # fmt: skip


def _summary(problem: Problem, last: int) -> Iterable[Html]:
    there = sum(len(problem.there(number)) for number in range(last + 1))
    slots = sum(map(len, problem.rounds))
    if there < slots:
        yield tag("span", f"{there} of {slots} candidates")
    if problem.record.get("mean") is not None:
        yield tag("span", f"{_share(problem.record['mean'])} of round {last} correct")
    if problem.record.get("majority"):
        yield tag("span", "majority ", _choice(problem, "majority"))


def _inside(problem: Problem, limit: int) -> Iterator[Html]:
    prompt = problem.record.get("prompt")
    yield trace(str(prompt), limit) if prompt else tag("p", "The problem's text is not recorded yet.", class_="note")
    yield _answers(problem)
    yield draw(problem, limit)


def _answers(problem: Problem) -> Html:
    """Each answer with its votes by round."""
    if not problem.answers:
        return Html("")
    votes = [problem.votes(number) for number in range(len(problem.rounds))]
    shown = problem.answers[:20]
    items = [tag("li", chip(problem, answer), judged(problem.verdict(answer)),
                 tag("span", "votes ", " → ".join(str(counted[answer]) for counted in votes), class_="votes"))
             for answer in shown]  # fmt: skip
    more = tag("li", f"and {len(problem.answers) - len(shown)} more") if len(shown) < len(problem.answers) else ""
    return tag("ul", *items, more, class_="answers")
