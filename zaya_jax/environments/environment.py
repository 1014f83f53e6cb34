"""The contract between a task and whoever samples it: a problem is shown, a verdict comes back.

A problem is plain JSON, so that it can be stored, sent to another process and drawn by number. Whoever samples sees
`prompt` alone; `hidden` is for the verifier of the task family that made the problem.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from zaya_jax.errors import mistake


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something to be solved.

    Attributes:
        id: unique within its benchmark or environment.
        prompt: what the model reads, before any chat template.
        hidden: what the verifier needs and the model must not see; JSON.
        meta: what else is known of it (source, date, difficulty); JSON.
    """

    id: str
    prompt: str
    hidden: Mapping[str, Any]
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record that `from_json` reads."""
        return {"id": self.id, "prompt": self.prompt, "hidden": dict(self.hidden), "meta": dict(self.meta)}

    @classmethod
    def from_json(cls, record: Any) -> Problem:
        """A problem from its record.

        Raises:
            UserError: a field is missing, unknown or of another type, or holds what JSON cannot.
        """
        if not isinstance(record, Mapping):
            raise mistake("not a problem", expected="a JSON object", found=type(record).__name__)
        fields = {"id": str, "prompt": str, "hidden": Mapping, "meta": Mapping}
        strangers = [str(key) for key in record if key not in fields]
        if strangers:
            raise mistake(f"unknown key {strangers[0]!r} of a problem", expected=f"{', '.join(fields)}")
        for name, kind in fields.items():
            value = record.get(name, {} if name == "meta" else None)
            if not isinstance(value, kind) or value == "":
                expected = "a JSON object" if kind is Mapping else "a text that is not empty"
                raise mistake(f"no {name!r} of a problem", expected=expected, found=repr(value)[:40])
        problem = cls(record["id"], record["prompt"], dict(record["hidden"]), dict(record.get("meta", {})))
        _check_json(problem)
        return problem


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a verifier says of a response.

    Attributes:
        reward: 1 for a right answer, 0 for a wrong one; a task family may give parts.
        correct: whether the answer is right; what accuracies count.
        format: whether there is an answer in the form that was asked for, right or wrong.
        error: why there is none, or why it fails, in a few words; None if there is nothing to say.
        answer: as it was taken out of the response; None if there is none.
    """

    reward: float
    correct: bool
    format: bool
    error: str | None = None
    answer: str | None = None


@dataclasses.dataclass(frozen=True)
class Environment:
    """A family of problems without end, in plain Python: nothing is drawn but from the seed.

    Attributes:
        name: unique among the environments of a run; also the first part of its problems' ids.
        generate: (seed, difficulty) -> the problem, the same on every machine. Difficulties count from 0 up and have no
            upper bound; a harder one is a harder problem on average.
        verify: (problem, response) -> the verdict. The response is what follows the reasoning, or all of it where there
            is none. It may come from anyone: whatever it holds, a verdict comes back.
        explain: (problem) -> reasoning in steps and the answer, as a model is taught to write them; None if the family
            has no such texts.
    """

    name: str
    generate: Callable[[int, int], Problem]
    verify: Callable[[Problem, str], Verdict]
    explain: Callable[[Problem], tuple[str, str]] | None = None


def _check_json(problem: Problem) -> None:
    try:
        json.dumps(problem.to_json(), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise mistake("not JSON", where=f"problem {problem.id}", found=str(error)[:80]) from None
