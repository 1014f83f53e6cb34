"""Problems with attempts at them, as an environment: one stage of Markovian RSA (ZAYA1 report, VI-B).

    attempts:PATH.jsonl                          four attempts a prompt, in the words of kind "general"
    attempts:PATH.jsonl?count=2&wording=compact  two, in the words for nano models

PATH is a file of attempts (`environments.attempts`). The seed picks a problem of the difficulty, and so many of its
attempts uniformly without replacement, in the order that they are drawn in; the answer is judged as the problem's own
environment judges it. Tails are those of a frozen model or of an expert: one stage of generation is learnt from, none
behind it.

`prompt` is the prompt as text. What the policy reads is put together from tokens, as Markovian RSA does it
(`rl.generation.prompt_of`), for which `aggregation_of` gives the parts.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
import random
import urllib.parse
from collections.abc import Mapping, Sequence

from zaya_jax.environments.attempts import KIND, Attempt, Row, parse_attempt, read_attempts
from zaya_jax.environments.environment import Environment, Problem, Verdict
from zaya_jax.environments.named import named
from zaya_jax.environments.rows import check_keys
from zaya_jax.errors import mistake
from zaya_jax.text.aggregation import Wording, load_wording, prompt_text

_FORM = f"{KIND}:PATH.jsonl?count=4&wording=general"


@dataclasses.dataclass(frozen=True)
class Options:
    """How prompts are made of a file.

    Attributes:
        count: C, attempts a prompt; 4 in the report.
        wording: around them, a kind or a file (`text.aggregation`).
    """

    count: int = 4
    wording: str = "general"

    def __post_init__(self):
        if self.count < 1:
            raise mistake("too few", where=f"{KIND}:...?count", expected="1 or more", found=self.count)


@dataclasses.dataclass(frozen=True)
class Aggregation:
    """What a prompt with attempts is made of.

    Attributes:
        prompt: of the problem itself.
        attempts: in their order.
        wording: around them.
    """

    prompt: str
    attempts: tuple[Attempt, ...]
    wording: str


def attempts_environment(path_and_options: str) -> Environment:
    """The environment of what stands behind `attempts:`.

    Difficulties are those of the rows; of one that there is none of, the nearest is taken, the lower of two.

    Raises:
        UserError: as `read_attempts`; an option is none, a row has fewer attempts than a prompt, or its environment is
            none.
    """
    path, options = split(path_and_options)
    wording = load_wording(options.wording)
    rows = read_attempts(path)
    _check_counts(rows, options, path)
    judges = {name: named(name) for name in sorted({row.environment for row in rows})}
    levels: dict[int, list[Row]] = collections.defaultdict(list)
    for row in rows:
        levels[row.difficulty].append(row)
    name = f"{KIND}:{pathlib.Path(path).stem}"
    explained = all(judge.explain is not None for judge in judges.values())
    return Environment(
        name,
        functools.partial(_generate, name, levels, options, wording),
        functools.partial(_verify, judges),
        functools.partial(_explain, judges) if explained else None,
    )


def split(path_and_options: str) -> tuple[str, Options]:
    """The path, and the options behind its question mark.

    Raises:
        UserError: an option is unknown, given twice, or not of its type.
    """
    path, _, text = path_and_options.partition("?")
    where = f"environment {KIND}:{path_and_options}"
    try:
        pairs = urllib.parse.parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text))
        given = dict(pairs)
        check_keys(given, [field.name for field in dataclasses.fields(Options)], where)
        if len(given) < len(pairs):
            raise mistake("the same option twice", where=where, expected=_FORM)
        return path, Options(**given | ({"count": int(given["count"])} if "count" in given else {}))
    except ValueError:
        raise mistake("options cannot be read", where=where, expected=_FORM, found=repr(text)[:40]) from None


def is_aggregation(specification: str) -> bool:
    """Whether a specification names prompts with attempts."""
    return specification.startswith(f"{KIND}:")


def original(problem: Problem) -> Problem:
    """The problem behind a prompt with attempts; any other is its own."""
    return Problem.from_json(problem.hidden["problem"]) if is_aggregation(_name(problem)) else problem


def aggregation_of(problem: Problem) -> Aggregation | None:
    """What a problem's prompt is made of; None for one without attempts."""
    if not is_aggregation(_name(problem)):
        return None
    shown = problem.meta["shown"]
    attempts = tuple(parse_attempt(record, f"problem {problem.id}") for record in shown["attempts"])
    return Aggregation(original(problem).prompt, attempts, shown["wording"])


def _name(problem: Problem) -> str:
    return str(problem.meta.get("environment", ""))


def _check_counts(rows: Sequence[Row], options: Options, path: str) -> None:
    for row in rows:
        if len(row.attempts) < options.count:
            where, expected = f"{path}, id {row.id!r}", f"at least {options.count}, those of a prompt"
            fix = f"add ?count={len(row.attempts)} to the specification, or draw more attempts"
            raise mistake("too few attempts", where=where, expected=expected, found=len(row.attempts), fix=fix)


def _generate(
    name: str, levels: Mapping[int, Sequence[Row]], options: Options, wording: Wording, seed: int, difficulty: int
) -> Problem:
    nearest = min(levels, key=lambda level: (abs(level - difficulty), level))
    chance = random.Random(f"{KIND} {difficulty} {seed}")
    row = chance.choice(levels[nearest])
    places = chance.sample(range(len(row.attempts)), options.count)
    attempts = [row.attempts[place] for place in places]
    prompt = prompt_text(row.problem.prompt, wording, [one.text for one in attempts])
    shown = {"wording": options.wording, "attempts": [one.to_json() for one in attempts], "places": places}
    own = {"environment": name, "difficulty": nearest, "seed": seed, "saturated": difficulty > max(levels)}
    hidden = {"environment": row.environment, "problem": row.problem.to_json()}
    return Problem(f"{name}/{difficulty}/{seed}", prompt, hidden, {**own, "row": row.id, "shown": shown})


def _verify(judges: Mapping[str, Environment], problem: Problem, response: str) -> Verdict:
    return judges[problem.hidden["environment"]].verify(original(problem), response)


def _explain(judges: Mapping[str, Environment], problem: Problem) -> tuple[str, str]:
    return judges[problem.hidden["environment"]].explain(original(problem))
