"""Studies: several ways to train, each with several seeds from one model, examined on the same held-out problems.

A way is an `Arm`: a command with its configuration. The plan of a study is a list of stages as a cascade has them, so
that it is run, stopped and gone on with in the same manner (`stages_run`); `study_results` reads what they leave.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from zaya_jax.errors import mistake
from zaya_jax.rl.checks import check_range
from zaya_jax.rl.sample_scores import SCORES
from zaya_jax.rl.stages import Stage

# What may change when a study goes on: finished runs stay what they are.
FREE = ("seeds", "comparisons", "groups")
START = "start"  # the model that all arms begin with, examined like them
SAMPLED, GREEDY = "sampled", "greedy"
_MODULES = {"rl": "experiments.rl", "train": "experiments.train"}


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to train.

    Attributes:
        name: unique.
        command: "rl" or "train".
        config: FILE.py:arguments, as the command takes it; {initial} and {seed} are put in.
        overrides: further arguments of the command, e.g. "--config.loss=clip"; the same holds for them.
        follows: an earlier arm, whose model of the same seed this one begins with instead of the study's.
    """

    name: str
    command: Literal["rl", "train"]
    config: str
    overrides: tuple[str, ...] = ()
    follows: str = ""

    def __post_init__(self):
        object.__setattr__(self, "overrides", tuple(self.overrides))
        if self.command not in _MODULES:
            raise mistake("no such command", where=f"arm {self.name}", expected="rl or train", found=self.command)
        if not self.name or self.name == START or "/" in self.name:
            raise mistake("not a name of an arm", expected=f"a word other than {START!r}", found=repr(self.name))


@dataclasses.dataclass(frozen=True)
class ProblemGroup:
    """Problems that are compared by themselves: those of some environments."""

    name: str
    environments: tuple[str, ...]

    def __post_init__(self):
        object.__setattr__(self, "environments", tuple(self.environments))


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """A study.

    Attributes:
        name: of it.
        initial: the model that all arms begin with, in the hub's format.
        arms: the ways to train.
        seeds: each arm is trained once with each.
        comparisons: (arm, other) pairs that were named beforehand, the other may be "start"; only these are tested,
            with Holm's correction over all of them.
        environments, difficulties: of the held-out problems.
        problems: of each environment and difficulty.
        samples: of each problem at temperature 1; avg@k and pass@k are of this k.
        thinking_budget, answer_budget: tokens, as in training.
        slots: of the engine that examines.
        reward: a reward model's directory, whose scores of the sampled answers are a figure too; "" for none.
        groups: comparisons are made for each by itself; without any, of all problems together.
    """

    name: str
    initial: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    comparisons: tuple[tuple[str, str], ...] = ()
    environments: tuple[str, ...] = ("addition",)
    difficulties: tuple[int, ...] = (2,)
    problems: int = 100
    samples: int = 16
    thinking_budget: int = 112
    answer_budget: int = 28
    slots: int = 64
    reward: str = ""
    groups: tuple[ProblemGroup, ...] = ()

    def __post_init__(self):
        arms = self.arms
        for name in ("seeds", "environments", "difficulties"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "comparisons", tuple(tuple(pair) for pair in self.comparisons))
        for name in ("problems", "samples", "slots", "answer_budget"):
            check_range(self, name, 1, whole=True)
        names = [arm.name for arm in arms]
        if not arms or len(set(names)) != len(names) or not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise mistake("not a study", where=self.name, expected="arms with names of their own, and different seeds")
        for place, arm in enumerate(arms):
            if arm.follows and arm.follows not in names[:place]:
                expected = f"one of {', '.join(names[:place]) or 'none'}"
                raise mistake("follows no earlier arm", where=f"arm {arm.name}", expected=expected, found=arm.follows)
        for pair in self.comparisons:
            strangers = [one for one in pair if one not in (*names, START)]
            if strangers or len(pair) != 2:
                expected = f"two of {', '.join((START, *names))}"
                raise mistake("not a comparison", where="comparisons", expected=expected, found=" - ".join(pair))
        for group in self.groups:
            if not group.environments or not set(group.environments) <= set(self.environments):
                where, found = f"groups, {group.name}", ", ".join(group.environments) or "nothing"
                raise mistake("not a group", where=where, expected="some of the environments", found=found)
        if not self.initial:
            raise mistake("no model to begin with", where="initial", expected="a directory")


def stages(study: StudyConfig, workdir: pathlib.Path | str) -> list[Stage]:
    """The plan: the start's examination, then each arm with each seed; all arms with the first seed before any with the
    second."""
    root = pathlib.Path(workdir)
    plan = _examined(study, START, pathlib.Path(study.initial), root)
    for seed in study.seeds:
        for arm in study.arms:
            run = root / run_name(arm.name, seed)
            plan += [_trained(study, arm, seed, run), *_examined(study, run.name, run / "model", root)]
    return plan


def run_name(arm: str, seed: int) -> str:
    """Of an arm's run, and of its directory."""
    return f"{arm}_{seed}"


def benchmarks(study: StudyConfig) -> list[str]:
    """Of the held-out problems, as `evaluate` names them."""
    return [f"{name}-{difficulty}" for name in study.environments for difficulty in study.difficulties]


def _trained(study: StudyConfig, arm: Arm, seed: int, run: pathlib.Path) -> Stage:
    given = (f"--config={arm.config}", *arm.overrides)
    initial = str(run.with_name(run_name(arm.follows, seed)) / "model") if arm.follows else study.initial
    filled = (one.replace("{initial}", initial).replace("{seed}", str(seed)) for one in given)
    arguments = (*filled, f"--workdir={run}")
    kind = "rl" if arm.command == "rl" else "training"
    return Stage(run.name, f"{arm.name}, seed {seed}", kind, _MODULES[arm.command], arguments, str(run), ("model",))


def _examined(study: StudyConfig, name: str, model: pathlib.Path, root: pathlib.Path) -> list[Stage]:
    """Answers at temperature 1, and greedy ones; scores of the former, if there is a reward model."""
    common = (
        f"--checkpoint={model}", f"--environments={','.join(study.environments)}",
        f"--difficulties={','.join(map(str, study.difficulties))}", f"--count={study.problems}",
        f"--beta={study.thinking_budget}", f"--answer_budget={study.answer_budget}", f"--slots={study.slots}",
        "--dtype=float32",
    )  # fmt: skip
    ways = {SAMPLED: (f"--n={study.samples}", "--temperature=1"), GREEDY: ("--n=1", "--temperature=0")}
    plan = [
        Stage(
            f"{name}_{way}", f"{name}, {way}", "data", "experiments.evaluate",
            (*common, *own, f"--output={root / 'answers' / name / way}"), str(root / "answers" / name / way),
            tuple(f"{benchmark}/grades.jsonl" for benchmark in benchmarks(study)),
        )
        for way, own in ways.items()
    ]  # fmt: skip
    return plan + ([_scored(study, name, root)] if study.reward else [])


def _scored(study: StudyConfig, name: str, root: pathlib.Path) -> Stage:
    answers = root / "answers" / name / SAMPLED
    arguments = (f"--answers={answers}", f"--reward={study.reward}")
    products, title = tuple(f"{one}/{SCORES}" for one in benchmarks(study)), f"{name}, scored"
    return Stage(f"{name}_scored", title, "data", "experiments.score_answers", arguments, str(answers), products)
