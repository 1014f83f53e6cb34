"""Data sets of reasoning-gym (arXiv 2505.24760; `pip install -e .[rl]`) as environments.

Its prompts say nothing about the form of an answer, and its scorers are lenient: most give parts of the reward to an
answer that holds the right one somewhere. Here the last pair of answer tags counts alone, only a score of 0.99 or more
is right, and nothing may stand beside the right answer. What cannot be used even so is in `DENIED`.

Difficulty d sets every attribute of a data set's curriculum to level d, or to its last one. Levels end, mostly after
four or five: a problem beyond them says `"saturated": true` in its `meta`.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import importlib.metadata
import random
import signal
import threading
from collections.abc import Iterator
from typing import Any

from zaya_jax.environments.answer_tags import REQUEST, last_answer
from zaya_jax.environments.confined import check_confinement, confined
from zaya_jax.environments.environment import Environment, Problem, Verdict
from zaya_jax.environments.worker_main import in_worker
from zaya_jax.errors import mistake

PASSING = 0.99  # of a score of 0 to 1
ATTEMPTS, SECONDS = 4, 2.0  # seeds that are tried for a problem, and the wall time of each

_SLOW = "takes minutes, or does not end, at its higher levels"
_CONFIG = "its higher levels are configurations that it refuses"
_EVALUATES = "its scorer evaluates the answer as Python"
_SYMPY = "its scorer gives the answer to sympy's parse_expr, which evaluates Python"
_HEDGES = "its scorer takes 'X or not' for X"
DENIED = {
    "futoshiki": _SLOW,
    "jugs": _SLOW,
    "n_queens": f"{_SLOW}; {_EVALUATES}",
    "puzzle24": f"{_SLOW}; {_SYMPY}",
    "sokoban": f"{_SLOW}, even at its lowest; {_HEDGES}",
    "sudoku": _SLOW,
    "zebra_puzzles": _SLOW,
    "caesar_cipher": _CONFIG,
    "knight_swap": _CONFIG,
    "letter_jumble": f"{_CONFIG}; {_HEDGES}",
    "rubiks_cube": _CONFIG,
    "spell_backward": _CONFIG,
    "binary_matrix": _EVALUATES,
    "spiral_matrix": _EVALUATES,
    "string_insertion": _EVALUATES,
    "countdown": _SYMPY,
    "intermediate_integration": _SYMPY,
    "polynomial_multiplication": _SYMPY,
    "simple_integration": _SYMPY,
    "coin_flip": "its scorer has an absolute tolerance, and takes 0 for a small probability",
    "game_of_life_halting": "its scorer takes any text for right",
    "fraction_simplification": _HEDGES,
    "gsm_symbolic": _HEDGES,
    "kakurasu": _HEDGES,
    "knights_knaves": _HEDGES,
    "quantum_lock": _HEDGES,
    "survo": _HEDGES,
    "boxnet": "it has no answer that its scorer takes, and the scorer raises on what is none",
    "composite": "it is a mixture of other data sets; name those",
}


def reasoning_gym_environment(name: str) -> Environment:
    """The environment of a data set.

    Raises:
        UserError: reasoning-gym is not installed, has no such data set, it is denied, or its scorer cannot be confined.
    """
    where = f"environment reasoning_gym:{name}"
    if name in DENIED:
        raise mistake("is not usable for training", where=where, found=DENIED[name])
    check_confinement(where)
    factory = _factory(where)
    if name not in factory.DATASETS:
        close = difflib.get_close_matches(name, factory.DATASETS, 1)
        fix = f"did you mean {close[0]}?" if close else ""
        raise mistake("no such data set", where=where, expected=f"one of {len(factory.DATASETS)}", fix=fix)
    return Environment(
        f"reasoning_gym:{name}",
        functools.partial(_generate, name),
        functools.partial(_verify, name),
    )


def _generate(name: str, seed: int, difficulty: int) -> Problem:
    """The first problem that a seed gives; where one fails or takes too long, the next seed that follows from it."""
    number, entry = _first(name, seed, difficulty)
    cap = _levels(name) - 1
    level = min(difficulty, cap)
    answer = entry["answer"] if isinstance(entry["answer"], str) else None
    return Problem(
        f"reasoning_gym:{name}/{difficulty}/{seed}",
        f"{entry['question'].strip()}\n\n{REQUEST}",
        {"seed": number, "level": level, "answer": answer, "version": _version()},
        {"environment": f"reasoning_gym:{name}", "difficulty": difficulty, "seed": seed,
         "level": level, "saturated": difficulty >= cap},
    )  # fmt: skip


def _first(name: str, seed: int, difficulty: int) -> tuple[int, dict[str, Any]]:
    level = min(difficulty, _levels(name) - 1)
    chance = random.Random(f"reasoning_gym {name} {difficulty} {seed}")
    numbers = [seed, *(chance.getrandbits(31) for _ in range(ATTEMPTS - 1))]
    for number in numbers:
        try:
            with _at_most(SECONDS):
                return number, _entry(name, number, level)
        except MemoryError:
            raise
        except Exception as error:
            last = error
    raise RuntimeError(f"no problem from {ATTEMPTS} seeds; the last: {type(last).__name__}: {last}")


def _verify(name: str, problem: Problem, response: str) -> Verdict:
    """Raises UserError outside of a worker, whose time is limited: some scorers hang."""
    if not in_worker():
        fix = "verify through zaya_jax.environments.workers.Workers"
        raise mistake("reasoning-gym scores in a worker only", where=problem.id, fix=fix)
    hidden = problem.hidden
    if hidden["version"] != _version():
        raise RuntimeError(f"the problem is of reasoning-gym {hidden['version']}, this is {_version()}")
    answer = last_answer(response)
    if answer is None:
        return Verdict(0.0, False, False, "no answer")
    # The entry is made once more: what JSON does to its metadata (tuples, keys that are numbers), scorers may not like.
    entry = _entry(name, hidden["seed"], hidden["level"])
    dataset = _dataset(name, hidden["seed"], hidden["level"])
    return Verdict(*confined(_scored, dataset, answer, entry))


def _scored(dataset: Any, answer: str, entry: dict[str, Any]) -> tuple[float, bool, bool, str | None, str]:
    """The fields of the verdict, from a scorer that may do what it likes here."""
    try:
        score = float(dataset.score_answer(answer, entry))
    except MemoryError:
        raise
    except Exception as error:  # of what is no answer, in prime_factorization for instance
        return 0.0, False, True, f"scorer: {type(error).__name__}", answer
    correct = score >= PASSING and not (score < 1 and _holds(answer, entry["answer"]))
    return float(correct), correct, True, None if correct else f"score {score:.3g}", answer


def _holds(answer: str, gold: Any) -> bool:
    """Whether the right answer is only a part of what was given: the score is then the ratio of their lengths, and near
    enough to 1 for a long one."""
    return isinstance(gold, str) and gold != answer and gold in answer


@functools.lru_cache(64)
def _entry(name: str, seed: int, level: int) -> dict[str, Any]:
    return _dataset(name, seed, level)[0]


@functools.lru_cache(64)
def _dataset(name: str, seed: int, level: int) -> Any:
    factory = _factory(f"environment reasoning_gym:{name}")
    if name not in factory.CURRICULA:
        return factory.create_dataset(name, seed=seed, size=1)
    curriculum = factory.create_curriculum(name)
    for attribute, definition in curriculum.attributes.items():
        curriculum.set_attr_level(attribute, min(level, len(definition.levels) - 1))
    config = curriculum.generate_configuration({"seed": seed, "size": 1})
    return factory.DATASETS[name][0](config=config)


@functools.cache
def _levels(name: str) -> int:
    """The number of difficulties that differ."""
    factory = _factory(f"environment reasoning_gym:{name}")
    if name not in factory.CURRICULA:
        return 1
    return max((len(item.levels) for item in factory.create_curriculum(name).attributes.values()), default=1)


def _factory(where: str) -> Any:
    try:
        importlib.import_module("reasoning_gym")
        return importlib.import_module("reasoning_gym.factory")
    except ModuleNotFoundError as error:
        if error.name != "reasoning_gym":
            raise mistake("reasoning-gym cannot be imported", where=where, found=f"no module {error.name!r}") from None
        fix = "pip install -e .[rl]"
        raise mistake("needs reasoning-gym", where=where, found="it is not installed", fix=fix) from None


@functools.cache
def _version() -> str:
    try:  # its own __version__ is an older one
        return importlib.metadata.version("reasoning-gym")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """TimeoutError after so much wall time, where this is possible: on the main thread of a system with signals."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def late(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
