"""Environments of instructions: a short request, and what the response has to keep to (IFEval's way, arXiv 2311.07911).

    simple_instructions   1 + difficulty // 2 instructions, of the kinds that people ask for every day
    hard_instructions     2 + difficulty // 2, of rarer kinds too, with exact counts that bear on each other

Numbers in the instructions grow with the difficulty without bound; their count ends at `MOST`, or earlier where none of
those drawn goes together with the others. Every problem can be solved: an instruction is taken into a set only when a
response has been found that keeps to all (`response.respond`), which is also what `explain` shows.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence

from zaya_jax.environments.environment import Environment, Problem, Verdict
from zaya_jax.environments.instructions.kinds import KINDS, WORDS, Instruction, conflict, draw, subjects
from zaya_jax.environments.instructions.response import respond
from zaya_jax.grading.instructions import check

SIMPLE, HARD = "simple_instructions", "hard_instructions"
MOST = 12  # instructions of a prompt
REQUESTS = ("Write about {}.", "Tell me of {}.", "Describe {}.", "A note on {}.")
_TRIES = 30  # instructions drawn for each that is wanted


def generate(name: str, seed: int, difficulty: int) -> Problem:
    """A problem of `SIMPLE` or `HARD`, see there."""
    rng = random.Random(f"{name} {difficulty} {seed}")
    topic = rng.choice(WORDS)
    request = rng.choice(REQUESTS).format(topic)
    instructions = _drawn(rng, name, topic, difficulty)
    prompt = " ".join([request, *(item.text for item in instructions)])
    hidden = {"kind": "instructions", "topic": topic, "instructions": [item.to_json() for item in instructions]}
    meta = {"environment": name, "difficulty": difficulty, "seed": seed}
    return Problem(f"{name}/{difficulty}/{seed}", prompt, hidden, meta)


def verify(problem: Problem, response: str) -> Verdict:
    """Reward 1 where all checks hold, else 0; the error names the first that fails. Any text has the right format."""
    if not response.strip():
        return Verdict(0.0, False, False, "empty response")
    wrong = next((item.name for item in _hidden(problem) if not check(item.name, item.arguments, response)), None)
    return Verdict(float(wrong is None), wrong is None, True, wrong and f"not followed: {wrong}", response.strip())


def explain(problem: Problem) -> tuple[str, str]:
    """The instructions one by one, and a response that keeps to all."""
    instructions = _hidden(problem)
    reasoning = "\n".join(f"{number} {item.text}" for number, item in enumerate(instructions, 1))
    return reasoning, respond(problem.hidden["topic"], instructions) or ""


def _drawn(rng: random.Random, name: str, topic: str, difficulty: int) -> list[Instruction]:
    """Instructions that go together, one after the other."""
    hard = name == HARD
    weights = [kind.rare if hard else kind.weight for kind in KINDS.values()]
    wanted = min(1 + hard + difficulty // 2, MOST)
    taken: list[Instruction] = []
    for _ in range(_TRIES * wanted):
        (kind,) = rng.choices(list(KINDS), weights)
        new = draw(rng, kind, difficulty, strict=hard)
        if _fits(new, taken, topic) and respond(topic, [*taken, new]) is not None:
            taken.append(new)
        if len(taken) == wanted:
            break
    return taken


def _fits(new: Instruction, taken: Sequence[Instruction], topic: str) -> bool:
    about = {topic}.union(*(subjects(item.arguments) for item in taken))
    return not about & subjects(new.arguments) and not any(conflict(new.name, item.name) for item in taken)


def _hidden(problem: Problem) -> list[Instruction]:
    return [Instruction(**item) for item in problem.hidden["instructions"]]


def _environment(name: str) -> Environment:
    return Environment(name, functools.partial(generate, name), verify, explain)


ENVIRONMENTS: dict[str, Environment] = {name: _environment(name) for name in (SIMPLE, HARD)}
