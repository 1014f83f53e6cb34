"""Files of attempts, for tests that read some."""

import itertools
import json
from pathlib import Path

from zaya_jax.environments.families import FAMILIES
from zaya_jax.environments.sft import draw

ATTEMPTS = ("one", "two\n", "three 3", "4")


def row(problem, environment="addition", difficulty=0, attempts=ATTEMPTS) -> dict:
    """A row of a file, its attempts given as texts."""
    given = {"environment": environment, "difficulty": difficulty, "problem": problem.to_json()}
    return {"schema": 1, "id": problem.id, **given, "attempts": [{"text": text} for text in attempts]}


def rows(cells=(("addition", 0), ("sorting", 2)), count=3, attempts=ATTEMPTS) -> list[dict]:
    """Rows of problems to learn from, so many of each family and difficulty."""
    return [
        row(problem, name, difficulty, attempts)
        for name, difficulty in cells
        for problem in itertools.islice(draw(FAMILIES[name], difficulty, "train"), count)
    ]


def write(path: Path, records) -> Path:
    """Writes them."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
