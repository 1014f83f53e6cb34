"""What the launchers `evaluate` and `markovian_rsa` do."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, Literal

from zaya_jax.environments.benchmarks import read_benchmark
from zaya_jax.environments.environment import Problem
from zaya_jax.errors import mistake
from zaya_jax.evaluation.commands import compare_files
from zaya_jax.evaluation.presets import preset
from zaya_jax.evaluation.search_run import SAMPLES, AnySettings, Machine, search_problems
from zaya_jax.report.candidates import write_candidates
from zaya_jax.sampling.delethink import Delethink
from zaya_jax.sampling.markovian_rsa import Settings
from zaya_jax.sampling.request import Sampling

METHODS = ("single", "rsa", "markovian_rsa", "delethink")
Method = Literal["single", "rsa", "markovian_rsa", "delethink"]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is asked for; None leaves it to the preset, or to the value in brackets.

    Attributes:
        method: "single" independent answers, "rsa" (whole reasoning is carried), "markovian_rsa", "delethink".
        n: samples a problem, or candidates a round [16].
        c, t: tails a prompt, rounds of aggregation; for "delethink" t + 1 chunks.
        beta: tokens of reasoning; of the first chunk for "delethink".
        tau: tokens that are carried.
        answer_budget: tokens of an answer.
        head: tokens of the first chunk that later ones keep ("delethink").
        temperature, top_p, top_k, min_p: how tokens are drawn [1, 1, off, off].
        parents, carry, probe_answers, final_call, seed: see `markovian_rsa.Settings`.
        preset: "report" takes temperature, top-p, top-k and n of each benchmark from the report.
    """

    method: Method = "single"
    n: int | None = None
    c: int = 4
    t: int = 2
    beta: int = 16384
    tau: int = 4096
    answer_budget: int = 8192
    head: int = 100
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float = 0.0
    parents: str = "uniform"
    carry: str = "tail"
    probe_answers: bool = False
    final_call: bool = False
    seed: int = 0
    preset: str | None = None

    def settings(self, benchmark: str) -> AnySettings:
        """What is done with a benchmark.

        Raises:
            UserError: a value is out of its range, or the preset has no such benchmark.
        """
        sampling, n = self._sampling(benchmark), self._count(benchmark)
        if self.method == "delethink":
            return Delethink(n, self.beta, self.t + 1, self.tau, self.head, sampling, self.seed)
        common = {
            "n": n,
            "beta": self.beta,
            "answer_budget": self.answer_budget,
            "sampling": sampling,
            "seed": self.seed,
        }
        if self.method == "single":
            return Settings(c=1, t=0, tau=self.beta, **common)
        return Settings(
            c=self.c,
            t=self.t,
            tau=self.beta if self.method == "rsa" else self.tau,
            parents=self.parents,
            carry=self.carry,
            probe_answers=self.probe_answers,
            final_call=self.final_call,
            **common,
        )

    def _sampling(self, benchmark: str) -> Sampling:
        """Test-time compute was measured at temperature 1 without filters, whatever a single answer is drawn with."""
        single = self.preset and self.method == "single"
        found = preset(benchmark) if single else Sampling()
        given = {name: getattr(self, name) for name in ("temperature", "top_p", "top_k")}
        chosen = {name: getattr(found, name) if value is None else value for name, value in given.items()}
        return Sampling(**chosen, min_p=self.min_p)

    def _count(self, benchmark: str) -> int:
        if self.n is not None:
            return self.n
        return preset(benchmark).k if self.preset and self.method == "single" else 16


def evaluate(
    machine: Machine,
    files: Sequence[str],
    wanted: Wanted,
    output: str,
    *,
    wording: str | None = None,
    prompts: str | None = None,
    choices_seed: int = 0,
    limit: int | None = None,
    html: bool = False,
    style: str = "text",
    workers: int = 2,
    allow_unisolated: bool = False,
) -> str:
    """Samples and grades benchmarks; gives the table of scores.

    Each benchmark has a directory of its own in `output` (`search_records`). Every file and setting is checked before
    the first is sampled.

    Args:
        prompts: a directory of one's own templates of problems; None for ours.
        limit: only so many problems of each.
        html: write the page of scores, and of each search its own.

    Raises:
        UserError: a file or a setting is not right.
    """
    problems = read_all(files, choices_seed, limit, prompts)
    settings = {name: wanted.settings(name) for name in problems}
    sandbox = make_sandbox([one for group in problems.values() for one in group], allow_unisolated)
    root = pathlib.Path(output)
    for name, group in problems.items():
        directory, options = root / name, {"method": wanted.method, "benchmark": name, "wording": wording}
        search_problems(machine, group, settings[name], directory, **options, workers=workers, sandbox=sandbox)
        if html and wanted.method != "single":
            print(write_candidates(directory, directory / "run.html"), file=sys.stderr)
    return show(root, list(problems), html, style)


def show(root: pathlib.Path, names: Sequence[str], html: bool, style: str) -> str:
    """The tables of what has been sampled, and its page."""
    files = [root / name / SAMPLES for name in names]
    return compare_files(files, output=root / "evaluation.html" if html else None, style=style)


def grade_again(
    output: str, files: Sequence[str], *, choices_seed: int = 0, style: str = "text", workers: int = 2
) -> str:
    """Grades stored samples anew, without sampling; gives the tables."""
    problems = read_all(files, choices_seed)
    stored = [pathlib.Path(output) / name / SAMPLES for name in problems]
    return compare_files(stored, files, style=style, choices_seed=choices_seed, workers=workers)


def read_all(
    files: Sequence[str], choices_seed: int = 0, limit: int | None = None, prompts: str | None = None
) -> dict[str, list[Problem]]:
    """Benchmarks by name, which is that of the file.

    Raises:
        UserError: none, two of one name, or a file that is not right.
    """
    if not files:
        raise mistake("no benchmark", expected="at least one --benchmark")
    out: dict[str, list[Problem]] = {}
    for file in files:
        name = pathlib.Path(file).stem
        if name in out:
            raise mistake("two benchmarks of one name", where=file, found=name, fix="rename one of the files")
        out[name] = read_benchmark(file, choices_seed, prompts)[:limit]
    return out


def make_sandbox(problems: Sequence[Problem], allow_unisolated: bool) -> Any:
    """Where code will run, made before anything is sampled: that there is none shows at once."""
    if not any(problem.hidden["kind"] == "code" for problem in problems):
        return None
    from zaya_jax.grading.sandbox import Sandbox

    return Sandbox(allow_unisolated=allow_unisolated)
