"""One problem's populations drawn: rounds as columns, candidates as cards, lines from each one's parents.

All rows of cards are equally high, so the lines' ends are known without measuring: the SVG between two columns
stretches with them, without JavaScript, on a phone and in print.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from zaya_jax.report.candidates_run import Problem, Record, answer_of, letter, mean, thinking_cut
from zaya_jax.report.candidates_text import find_tail, isolated, readable, shortened, trace
from zaya_jax.report.html import Html, join, tag

COLORS = 7  # of answers, in candidates.css; rarer ones are grey and told apart by their letters
NONE = "–"
_ROW = 100  # units of a row in the lines' SVG
_SHORT = 60  # characters of an answer on a card


def draw(problem: Problem, limit: int) -> Html:
    """The graph of a problem; texts behind the cards are shown up to the limit, in characters."""
    size, rounds = len(problem.rounds[0]), len(problem.rounds)
    parts = []
    for number in range(rounds):
        if number:
            parts.append(_lines(problem, number))
        parts.append(_head(problem, number))
        parts += [_slot(problem, number, index, limit) for index in range(size)]
    graph = tag(
        "div", *parts, class_="graph" if rounds > 1 else "graph single", style=f"--n:{size};--gaps:{rounds - 1}"
    )
    return tag("div", graph, class_="scroll", role="group", aria_label="Candidates by round", tabindex="0")


def chip(problem: Problem, answer: str | None, letters: int = _SHORT) -> Html:
    """An answer with its letter and colour."""
    if answer is None:
        return tag("span", tag("b", NONE), "no answer", class_="chip none")
    name = tag("b", letter(problem.answers.index(answer)))
    short = tag("bdi", shortened(answer, letters))
    return tag("span", name, short, class_=f"chip {color(problem, answer)}")


def color(problem: Problem, answer: str | None) -> str:
    """The class of an answer's colour."""
    rank = problem.answers.index(answer) if answer is not None else None
    return "none" if rank is None else f"a{rank}" if rank < COLORS else "rare"


def judged(correct: bool | None) -> Html:
    """Correct, incorrect or unknown: a sign and a word."""
    sign, word = {True: ("✓", "correct"), False: ("✗", "incorrect")}.get(correct, ("?", "unknown"))
    return tag("span", tag("i", sign, aria_hidden="true"), f" {word}", class_=f"judged {word}")


def anchor(problem: Problem, number: int, index: int) -> str:
    """The id of a candidate's card."""
    return f"p{problem.place}-r{number}-c{index}"


def whole(value: Any) -> str:
    """A count, or an en dash."""
    return f"{value:,.0f}" if value is not None and math.isfinite(value) else NONE


def _head(problem: Problem, number: int) -> Html:
    there, votes = problem.there(number), problem.votes(number)
    judgements = [candidate.get("correct") for candidate in there]
    known = sum(value is not None for value in judgements)
    answers = len([answer for answer in votes if answer is not None])
    facts = [
        f"{len(there)} of {len(problem.rounds[number])} candidates" if len(there) < len(problem.rounds[number]) else "",
        f"{answers} different answer{'s' * (answers != 1)}" if there else "",
        f"{sum(value is True for value in judgements)} of {known} correct" if known else "",
    ]
    note = tag("p", " · ".join(filter(None, facts)))
    return tag("header", tag("h4", f"Round {number}"), note, style=f"grid-column:{2 * number + 1}")


def _lines(problem: Problem, number: int) -> Html:
    """From the parents in the round before to the candidates of a round."""
    size = len(problem.rounds[number])
    paths = [_line(problem, number, parent, index) for index, candidate in enumerate(problem.rounds[number])
             for parent in parents(candidate) if parent < size]  # fmt: skip
    picture = tag("svg", *paths, viewBox=f"0 0 100 {_ROW * size}", preserveAspectRatio="none", aria_hidden="true")
    # Around it a box, which has no proportions that would stretch the rows.
    return tag("div", picture, class_="lines", style=f"grid-column:{2 * number}")


def _line(problem: Problem, number: int, parent: int, index: int) -> Html:
    a, b = (round(_ROW * (place + 0.5)) for place in (parent, index))
    source = problem.rounds[number - 1][parent]
    kind = color(problem, answer_of(source)) if source is not None else "none"
    ends = {"data_from": anchor(problem, number - 1, parent), "data_to": anchor(problem, number, index)}
    return tag("path", d=f"M0 {a}C50 {a} 50 {b} 100 {b}", class_=kind, **ends)


def parents(candidate: Record | None) -> list[int]:
    """The indices of a candidate's parents, each once."""
    return list(dict.fromkeys((candidate or {}).get("parents") or []))


def _slot(problem: Problem, number: int, index: int, limit: int) -> Html:
    place = f"grid-column:{2 * number + 1};grid-row:{index + 2}"
    candidate = problem.rounds[number][index]
    name = anchor(problem, number, index)
    if candidate is None:
        words = tag("p", f"#{index} is not there yet" if not problem.record else f"#{index} is missing")
        return tag("div", words, class_="missing", id=name, style=place)
    sheet = tag("div", *_sheet(problem, number, candidate, limit), class_="sheet")
    kind = f"candidate {color(problem, answer_of(candidate))}"
    return tag("details", tag("summary", *_face(problem, number, candidate)), sheet, class_=kind, id=name, style=place,
               name_="candidate")  # fmt: skip


def _face(problem: Problem, number: int, candidate: Record) -> Iterator[Html]:
    """What a card shows."""
    answer = answer_of(candidate)
    yield tag("span", tag("b", f"#{candidate['index']}"), judged(candidate.get("correct")), class_="top")
    votes = tag("span", _agreement(problem, number, answer), class_="votes")
    yield tag("span", chip(problem, answer), votes, class_="answer")
    yield tag("span", f"{whole(candidate.get('tokens'))} tokens · log p {_logprob(candidate)}", class_="small")
    origin = [tag("span", f"from {_hashes(parents(candidate))}")] if parents(candidate) else []
    yield tag("span", *origin, *_flags(candidate), class_="small last")


def _agreement(problem: Problem, number: int, answer: str | None) -> str:
    votes, there = problem.votes(number)[answer], len(problem.there(number))
    return f"{votes} of {there} {'agree' if answer is not None else 'have none'}"


def _flags(candidate: Record) -> Iterator[Html]:
    if thinking_cut(candidate):
        yield tag("em", "thinking cut", title="the thinking budget (beta) was used up before it ended")
    if candidate.get("finish") == "length" and candidate.get("answer") is not None:
        yield tag("em", "answer cut", title="the answer's budget was used up before it ended")


def _sheet(problem: Problem, number: int, candidate: Record, limit: int) -> Iterator[Html]:
    """What an opened card shows."""
    children = []
    if number + 1 < len(problem.rounds):
        children = [i for i, child in enumerate(problem.rounds[number + 1]) if candidate["index"] in parents(child)]
    yield tag("h5", f"Round {number}, candidate #{candidate['index']}")
    yield tag("p", chip(problem, answer_of(candidate), 400), " ", judged(candidate.get("correct")), class_="verdict")
    yield _links("Parents", problem, number - 1, parents(candidate))
    yield _links("Read by", problem, number + 1, children)
    yield tag("dl", *(join([tag("dt", name), tag("dd", value)]) for name, value in _facts(problem, number, candidate)))
    yield from _texts(candidate, number == len(problem.rounds) - 1, limit)


def _links(title: str, problem: Problem, number: int, indices: Sequence[int]) -> Html:
    if not indices:
        return Html("")
    links = (_link(problem, number, index) for index in indices if index < len(problem.rounds[number]))
    return tag("p", f"{title}: ", join(links, " "), class_="kin")


def _link(problem: Problem, number: int, index: int) -> Html:
    other = problem.rounds[number][index]
    answer = answer_of(other) if other is not None else None
    words = letter(problem.answers.index(answer)) if answer is not None else NONE
    return tag("a", f"#{index} ", tag("b", words), href=f"#{anchor(problem, number, index)}",
               class_=color(problem, answer))  # fmt: skip


def _facts(problem: Problem, number: int, candidate: Record) -> Iterator[tuple[str, Any]]:
    ends = {"stop": "ended by itself", "length": "cut: its budget was used up"}
    finish = candidate.get("finish")
    yield "agreement", _agreement(problem, number, answer_of(candidate))
    yield "generated", f"{whole(candidate.get('tokens'))} tokens"
    yield "prompt", f"{whole(candidate.get('prompt_tokens'))} tokens"
    yield "mean log-probability of a token", _logprob(candidate)
    forced = "end forced at the budget" if candidate.get("think_forced") else "ended at the budget"
    yield "thinking", forced if thinking_cut(candidate) else "ended by itself"
    known = finish is not None and candidate.get("answer") is not None
    yield "answer", ends.get(finish, isolated(finish)) if known else NONE
    probe = candidate.get("probe")
    if probe:
        yield "what it would have answered (probe)", join([_probed(problem, probe), " ", judged(probe.get("correct"))])


def _probed(problem: Problem, probe: Record) -> Html:
    answer = answer_of(probe)
    return chip(problem, answer) if answer is None or answer in problem.answers else isolated(shortened(answer, _SHORT))


def _texts(candidate: Record, is_last: bool, limit: int) -> Iterator[Html]:
    thinking, answer, tail = (str(candidate.get(name) or "") for name in ("thinking", "answer", "tail"))
    marked = find_tail(thinking, tail)
    yield tag("h6", "Answer ", _length(answer))
    yield trace(answer, limit) if answer else tag("p", "There is none.", class_="empty")
    yield tag("h6", "Thinking ", _length(thinking))
    if marked:
        fate = "no further round reads it" if is_last else "it is what the next round can read"
        yield tag("p", tag("mark", f"The tail of {marked[1] - marked[0]:,} characters"), f" is marked: {fate}.")
    yield trace(thinking, limit, marked) if thinking else tag("p", "There is none.", class_="empty")
    if tail and not marked:
        yield tag("h6", "Kept " if is_last else "Carried to the next round ", _length(tail))
        yield trace(tail, limit)


def _length(value: str) -> Html:
    return tag("span", f"{len(value):,} characters", class_="unit")


def _logprob(candidate: Record) -> str:
    value = mean([candidate.get("logprob")])
    return f"{value:.3f}".replace("-", "−") if math.isfinite(value) else NONE


def _hashes(indices: Sequence[int]) -> str:
    return readable(" ".join(f"#{index}" for index in indices))
