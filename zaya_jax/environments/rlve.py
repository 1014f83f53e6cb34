"""Environments of an RLVE checkout (arXiv 2511.07317, github.com/Zhiyuan-Zeng/RLVE): `rlve:Sorting@/path/to/RLVE`.

A checkout has a package `Gym` with two classes a task, found by its identifier in `identifier2environment` and
`identifier2controller`: one makes and judges problems, the other says what difficulty d is: d calls of `update()` on a
fresh one. Difficulties have no upper bound. Rewards there go from -1 to 1; here an answer is right, 1, or wrong, 0,
and the score stands in the verdict's `error`.

`Gym` imports torch, to seed it, and uses it for nothing else. In a worker, and where torch is not installed, there is a
stand-in for it: torch takes seconds to import, and more address space than a worker has.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import json
import pathlib
import random
import sys
import types
from typing import Any

from zaya_jax.environments.answer_tags import REQUEST, last_answer
from zaya_jax.environments.confined import check_confinement, confined
from zaya_jax.environments.environment import Environment, Problem, Verdict
from zaya_jax.environments.worker_main import in_worker
from zaya_jax.errors import UserError, mistake

DENIED = {"Countdown": "its scorer evaluates the answer as Python"}
ATTEMPTS = 8  # seeds that are tried for a problem: some tasks refuse some of them
_FOREVER = 10**6  # seconds; a worker's own clock ends what hangs, with the thread that Gym would leave behind


def rlve_environment(name: str, path: pathlib.Path | str) -> Environment:
    """The environment of an identifier.

    Args:
        name: e.g. "Sorting".
        path: the folder that holds `Gym`.

    Raises:
        UserError: there is no checkout, it cannot be imported, has no such identifier, that is denied, or its verifier
            cannot be confined.
    """
    path = pathlib.Path(path).expanduser().resolve()
    where = f"environment rlve:{name}@{path}"
    if name in DENIED:
        raise mistake("is not usable for training", where=where, found=DENIED[name])
    check_confinement(where)
    environments, controllers = _registries(path, where)
    for registry in (environments, controllers):
        if name not in registry:
            close = difflib.get_close_matches(name, registry, 1)
            fix = f"did you mean {close[0]}?" if close else ""
            raise mistake("no such identifier", where=where, expected=f"one of {len(registry)}", fix=fix)
    pair = environments[name], controllers[name]
    return Environment(f"rlve:{name}", functools.partial(_generate, name, pair), functools.partial(_verify, pair))


def _generate(name: str, pair: tuple[Any, Any], seed: int, difficulty: int) -> Problem:
    chance = random.Random(f"rlve {name} {difficulty} {seed}")
    parameters = _controller(pair[1], difficulty).get_parameter_list()
    for number in [seed, *(chance.getrandbits(31) for _ in range(ATTEMPTS - 1))]:
        task = pair[0]()
        if task.generator(number, chance.choice(parameters), timeout_second=_FOREVER):
            config = _plain(task.get_config())
            meta = {"environment": f"rlve:{name}", "difficulty": difficulty, "seed": seed, "saturated": False}
            prompt = f"{task.prompt_generator().strip()}\n\n{REQUEST}"
            return Problem(f"rlve:{name}/{difficulty}/{seed}", prompt, {"config": config}, meta)
    raise RuntimeError(f"no problem of difficulty {difficulty} from {ATTEMPTS} seeds")


def _verify(pair: tuple[Any, Any], problem: Problem, response: str) -> Verdict:
    answer = last_answer(response)
    if answer is None:
        return Verdict(0.0, False, False, "no answer")
    task = pair[0]()
    task.set_config(json.loads(json.dumps(problem.hidden["config"])))  # a copy: tasks may write into it
    return Verdict(*confined(_scored, task, answer))


def _scored(task: Any, answer: str) -> tuple[float, bool, bool, str | None, str]:
    """The fields of the verdict, from a verifier that may do what it likes here."""
    found = task.verifier(f"<answer>{answer}</answer>")
    correct = bool(found["accuracy"])
    told = None if correct else f"score {float(found['reward']):.3g}"
    return float(correct), correct, bool(found["format_score"]), told, answer


def _controller(kind: Any, difficulty: int) -> Any:
    controller = kind()
    for _ in range(difficulty):
        controller.update()
    return controller


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """A task's configuration as JSON gives it back; ValueError if its keys would not survive."""

    def check(value: Any) -> None:
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise ValueError("the configuration has keys that are no texts, which JSON would change")
            value = list(value.values())
        if isinstance(value, list | tuple):
            for item in value:
                check(item)

    check(config)
    return json.loads(json.dumps(config))


def _registries(path: pathlib.Path, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if not (path / "Gym" / "environments" / "__init__.py").is_file():
        fix = "git clone https://github.com/Zhiyuan-Zeng/RLVE, and name that folder"
        raise mistake("no checkout of RLVE", where=where, expected="a folder Gym/environments in it", fix=fix)
    other = sys.modules.get("Gym")
    if other is not None and pathlib.Path(other.__file__).resolve().parent != path / "Gym":
        raise mistake(
            "another Gym is imported already", where=where, found=other.__file__, fix="use one checkout a run"
        )
    if str(path) not in sys.path:
        sys.path.append(str(path))
    if "torch" not in sys.modules and (in_worker() or importlib.util.find_spec("torch") is None):
        sys.modules["torch"] = _torch()
    try:
        environments = importlib.import_module("Gym.environments").identifier2environment
        controllers = importlib.import_module("Gym.parameter_controllers").identifier2controller
    except ModuleNotFoundError as error:
        fix = f"pip install {error.name}"
        raise mistake(
            "the checkout cannot be imported", where=where, found=f"no module {error.name!r}", fix=fix
        ) from None
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise mistake(
            "the checkout cannot be imported", where=where, found=f"{type(error).__name__}: {error}"
        ) from None
    return environments, controllers


def _torch() -> types.ModuleType:
    """What Gym uses of torch: to set a seed, of which nothing is drawn."""
    torch = types.ModuleType("torch")
    torch.manual_seed = lambda seed: None
    torch.cuda = types.SimpleNamespace(manual_seed_all=lambda seed: None)
    return torch
