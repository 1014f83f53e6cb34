"""Files of problems as environments: the seed picks the row."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import importlib.util
import pathlib
from collections.abc import Callable, Sequence

from zaya_jax.environments.benchmarks import read_benchmark, shuffled, verify
from zaya_jax.environments.environment import Environment, Problem, Verdict
from zaya_jax.errors import mistake
from zaya_jax.grading.math_verifier import MathVerifier
from zaya_jax.grading.sandbox import Sandbox


def file_environment(path: pathlib.Path | str) -> Environment:
    """The problems of a benchmark file (docs/benchmarks.md), judged as benchmarks are.

    Raises:
        UserError: as `read_benchmark`; or math-verify is not installed and there is LaTeX to compare.
    """
    return rows_environment(pathlib.Path(path).stem, read_benchmark(path), str(path))


def rows_environment(
    name: str,
    problems: Sequence[Problem],
    path: str,
    judge: Callable[..., Verdict] = verify,
) -> Environment:
    """An environment of a finite number of problems.

    Seeds from 0 up go through all problems once, in an order of their own, before any comes again. Difficulties are all
    the same: `meta` says that they are saturated.

    Args:
        name: of the environment, and the first part of the problems' ids.
        problems: with `hidden["kind"]` as benchmarks have it.
        path: where they are from, for errors.
        judge: as `zaya_jax.environments.benchmarks.verify`.

    Raises:
        UserError: math-verify is not installed and there is LaTeX to compare.
    """
    kinds = {problem.hidden["kind"] for problem in problems}
    tools = {}
    if "latex" in kinds:
        tools["verifier"] = _math_verifier(path)
    if "code" in kinds:
        tools["sandbox"] = _sandbox()
    order = functools.lru_cache(2)(lambda epoch: shuffled(len(problems), epoch, name))

    def generate(seed: int, difficulty: int) -> Problem:
        epoch, place = divmod(seed, len(problems))
        row = problems[order(epoch)[place]]
        meta = {"environment": name, "difficulty": difficulty, "seed": seed, "saturated": True}
        return dataclasses.replace(row, id=f"{name}/{row.id}", meta={**row.meta, **meta})

    return Environment(name, generate, lambda problem, response: judge(problem, response, **tools))


@functools.cache
def _sandbox() -> Sandbox:
    return Sandbox()


@functools.cache
def _math_verifier(path: str) -> MathVerifier:
    """math-verify's process, one for this process: a worker's goes with the worker."""
    if importlib.util.find_spec("math_verify") is None:
        # A warning would not do: the same answers would be rewarded here and not there.
        fix = "pip install -e .[grading]"
        raise mistake("its LaTeX answers need math-verify", where=path, found="it is not installed", fix=fix)
    verifier = MathVerifier().__enter__()
    atexit.register(verifier.__exit__)
    return verifier
