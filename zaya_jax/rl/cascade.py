"""The cascade's plan: which stages there are, in which order, and what each begins with (ZAYA1 report, Figure 5).

    for stage in stages(CascadeConfig("nano"), "out/cascade"):
        print(stage.name, stage.command)

Supervised finetuning, reasoning warmup, RLVE-Gym, mathematics and code, the behavioural stage; each from the last one's
model. Around them what they need: data, attempts for prompts of Markovian RSA, data filtered by the pass rates of the
policy, a reward model; and Markovian RSA before and after the behavioural stage. A plan is data: `stages_run` runs it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from zaya_jax.environments.families import FAMILIES
from zaya_jax.errors import mistake
from zaya_jax.rl.checks import check_range
from zaya_jax.rl.stages import Kind, Stage

SCALES = ("nano", "8b")
BEHAVIORAL = ("chat", "simple", "hard")
# Files of a stage that are filtered by the pass rates of the policy that it begins with (report, IV-B3); 8b only, as
# families without end need no filter.
FILES = {
    "warmup": ("math", "puzzles"),
    "math_code_1": ("code", "code_auxiliary", "math"),
    "math_code_2": ("code", "code_auxiliary", "math"),
}
_FOLDERS = {"warmup": "warmup", "math_code_1": "math_code", "math_code_2": "math_code"}  # in the data
AT_MOST = 0.75  # the highest pass rate that stays, the report's for the warmup; undisclosed for the others
# Taught by finetuning as well, for the behavioural stage to have something to begin with.
REPLIES = ("requests", "simple_instructions", "hard_instructions")
_ATTEMPTED = {"warmup": ("addition", "sorting"), "math_code": ("addition", "chain")}
_SEARCHED, _AT = ("addition", "sorting"), 2  # environments of Markovian RSA at nano, and their difficulty
_TITLES = {
    "sft": "Supervised finetuning",
    "warmup": "Reasoning warmup",
    "rlve_gym": "RLVE-Gym",
    "math_code": "Mathematics and code",
    "math_code_1": "Mathematics and code, phase 1",
    "math_code_2": "Mathematics and code, phase 2",
    "reward_model": "Reward model",
    "behavioral_chat": "Behavioural stage: chat",
    "behavioral_simple": "Behavioural stage: simple instructions",
    "behavioral_hard": "Behavioural stage: hard instructions",
}


@dataclasses.dataclass(frozen=True)
class CascadeConfig:
    """A cascade.

    Attributes:
        scale: of all stages, "nano" or "8b".
        initial: the model that finetuning begins with, in the hub's format; nano may begin with nothing.
        data: of 8b: a folder with sft/, warmup/, math_code/, preferences/, behavioral/ and markovian_rsa.jsonl, each
            as the configuration of its stage wants it.
        steps: of the stages instead of their own numbers: "20" for all, or "NAME=20"; the last that fits counts.
        seed: of data, weights, problems and answers.
        without: stages that are left out, by their name or its beginning: "attempts", "rsa_after".

    Raises:
        UserError: a value is not right; what names a stage is looked at by `stages`.
    """

    scale: str = "nano"
    initial: str = ""
    data: str = ""
    steps: tuple[str, ...] = ()
    seed: int = 0
    without: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("steps", "without"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_range(self, "seed", 0, whole=True)
        if self.scale not in SCALES:
            raise mistake("unknown scale", where="--scale", expected=" or ".join(SCALES), found=self.scale)
        for name in ("initial", "data") if self.scale == "8b" else ():
            if not getattr(self, name):
                what = "the pretrained model" if name == "initial" else "a folder, see docs/reinforcement_learning.md"
                raise mistake("is required for 8b", where=f"--{name}", expected=what)
        for given in self.steps:
            if not given.rpartition("=")[2].isdecimal() or int(given.rpartition("=")[2]) < 1:
                raise mistake("no number of steps", where="--steps", expected="20 or NAME=20", found=repr(given))


def stages(config: CascadeConfig, workdir: Any) -> list[Stage]:
    """The plan, in order.

    Raises:
        UserError: a name of `without` or `steps` is no stage's, a stage has no model to begin with, or a path could not
            be told in a configuration's arguments.
    """
    for where, path in {"--workdir": workdir, "--initial": config.initial, "--data": config.data}.items():
        if "," in str(path) or "=" in str(path):
            raise mistake("a path with , or =", where=where, found=path, fix="choose another directory")
    every = names(config.scale)
    for where, given in (("--without", config.without), ("--steps", [s.rpartition("=")[0] for s in config.steps])):
        for part in given:
            if part and not any(_fits(part, name) for name in every):
                raise mistake("no such stage", where=where, expected=", ".join(every), found=repr(part))
    plan = _Plan(config, str(workdir), tuple(n for n in every if not any(_fits(w, n) for w in config.without)))
    return [plan.stage(name) for name in plan.names]


def names(scale: str) -> tuple[str, ...]:
    """All stages of a scale, in order."""
    behind = ("rsa_before", "reward_model", *(f"behavioral_{phase}" for phase in BEHAVIORAL), "rsa_after")
    if scale == "nano":
        learnt = ("attempts_warmup", "warmup", "rlve_gym", "attempts_math_code", "math_code")
        return ("data_train", "data_held_out", "sft", *learnt, *behind)
    return ("sft", *_filtered("warmup"), "rlve_gym", *_filtered("math_code_1"), *_filtered("math_code_2"), *behind)


def _filtered(name: str) -> tuple[str, ...]:
    return (f"rates_{name}", *(f"filter_{name}_{file}" for file in FILES[name]), f"attempts_{name}", name)


def _fits(part: str, name: str) -> bool:
    return name == part or name.startswith(f"{part}_")


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Makes the stages: what is left out changes what those behind it begin with."""

    config: CascadeConfig
    workdir: str
    names: tuple[str, ...]

    def stage(self, name: str) -> Stage:
        makers = {"data": self._data, "rates": self._rates, "filter": self._filter, "attempts": self._attempts,
                  "rsa": self._search, "reward": self._reward, "sft": self._finetuning}  # fmt: skip
        return makers.get(name.partition("_")[0], self._learning)(name)

    def _at(self, *parts: str) -> str:
        return "/".join((self.workdir, *parts))

    def _model_before(self, name: str) -> str:
        """What the stage begins with: the model of the last stage in front of it that makes a policy."""
        makes = [n for n in self.names if n == "sft" or n.startswith(("warmup", "rlve", "math_code", "behavioral"))]
        order = names(self.config.scale)
        before = [n for n in makes if order.index(n) < order.index(name)]
        if not before and not self.config.initial:
            raise mistake(
                "no model to begin with", where=f"stage {name}", fix="give --initial, or do not leave sft out"
            )
        return self._at(before[-1], "model") if before else self.config.initial

    def _steps(self, name: str) -> int:
        """0: the stage's own."""
        parts = [given.rpartition("=") for given in self.config.steps]
        return next((int(count) for part, _, count in reversed(parts) if not part or _fits(part, name)), 0)

    def _configured(self, module: str, path: str, name: str, *, kind: Kind, more=(), products=("model",), **given):
        told = {"scale": self.config.scale} | {key: value for key, value in given.items() if value}
        argument = ",".join(f"{key}={value}" for key, value in told.items())
        arguments = (f"--config={path}:{argument}", f"--workdir={self._at(name)}", *more)
        return Stage(name, _TITLES[name], kind, module, arguments, self._at(name), products)

    def _data(self, name: str) -> Stage:
        """Rows for supervised finetuning; prompts with attempts are taught here already."""
        part = name.removeprefix("data_")
        behavioral = any(n.startswith("behavioral") for n in self.names)
        rows = {"train": ("--count=20000", "--aggregation=0.25"), "held_out": ("--count=400", "--part=held_out")}[part]
        given = (f"--environments={','.join((*FAMILIES, *REPLIES))}",) if behavioral else ()
        output = self._at("data", f"{part}.jsonl")
        arguments = (*given, "--difficulties=0-2", *rows, f"--seed={self.config.seed}", f"--output={output}")
        module = "experiments.make_environment_data"
        return Stage(name, f"Rows of {part}", "data", module, arguments, self._at("data"), (f"{part}.jsonl",))

    def _finetuning(self, name: str) -> Stage:
        config = self.config
        data = self._at("data") if config.scale == "nano" else f"{config.data}/sft"
        given = {"data": data, "initial": config.initial, "steps": self._steps(name)}
        return self._configured("experiments.train", "configs/sft/reasoning.py", name, kind="training",
                                more=(f"--config.seed={config.seed}",), **given)  # fmt: skip

    def _learning(self, name: str) -> Stage:
        """Reinforcement learning."""
        config, (file, _, phase) = self.config, name.partition("_")
        if name.startswith("math_code"):
            file, phase = "math_code", name.removeprefix("math_code").strip("_")
        elif name == "rlve_gym":
            file, phase = name, ""
        given = {"initial": self._model_before(name), "phase": phase, "data": self._files(name),
                 "attempts": self._at("data", f"attempts_{name}.jsonl") if f"attempts_{name}" in self.names else "",
                 "reward": self._rewarding(name), "steps": self._steps(name), "seed": config.seed}  # fmt: skip
        # Verdicts on programs wait for all of their tests.
        more = ("--config.limits.seconds=120",) if file == "math_code" and config.scale == "8b" else ()
        return self._configured("experiments.rl", f"configs/rl/{file}.py", name, kind="rl", more=more, **given)

    def _rewarding(self, name: str) -> str:
        if not name.startswith("behavioral"):
            return ""
        if "reward_model" not in self.names:
            raise mistake("no reward model", where=f"stage {name}", fix="leave out behavioral, or not reward_model")
        return self._at("reward_model", "model")

    def _files(self, name: str) -> str:
        """The folder of an 8b stage's problems: filtered ones, if they are."""
        if self.config.scale == "nano" or name == "rlve_gym":
            return ""
        if any(n.startswith(f"filter_{name}_") for n in self.names):
            return self._at("data", name)
        return f"{self.config.data}/{_FOLDERS.get(name, 'behavioral')}"

    def _before_filter(self, name: str) -> str:
        """The second phase filters what the first one left."""
        first = name == "math_code_2" and any(n.startswith("filter_math_code_1") for n in self.names)
        return self._at("data", "math_code_1") if first else f"{self.config.data}/{_FOLDERS[name]}"

    def _rates(self, name: str) -> Stage:
        """Pass rates of a stage's problems under the policy that it will begin with."""
        stage = name.removeprefix("rates_")
        files = [f"--benchmark={self._before_filter(stage)}/{file}.jsonl" for file in FILES[stage]]
        model, output = self._model_before(name), self._at(name)
        arguments = (f"--checkpoint={model}", *files, "--n=16", f"--seed={self.config.seed}", f"--output={output}")
        products = tuple(f"{file}/grades.jsonl" for file in FILES[stage])
        return Stage(name, f"Pass rates before {stage}", "data", "experiments.evaluate", arguments, output, products)

    def _filter(self, name: str) -> Stage:
        stage = next(s for s in FILES if name.startswith(f"filter_{s}_"))
        file = name.removeprefix(f"filter_{stage}_")
        output = self._at("data", stage, f"{file}.jsonl")
        arguments = (f"--problems={self._before_filter(stage)}/{file}.jsonl",
                     f"--rates={self._at(f'rates_{stage}', file, 'grades.jsonl')}",
                     f"--at_most={AT_MOST}", f"--output={output}")  # fmt: skip
        title, module = f"Problems of {file} for {stage}", "experiments.filter_problems"
        return Stage(name, title, "data", module, arguments, self._at("data", stage), (f"{file}.jsonl",))

    def _attempts(self, name: str) -> Stage:
        """Attempts of the policy that a stage begins with, frozen, for its prompts with tails (report, VI)."""
        stage, output = name.removeprefix("attempts_"), self._at("data", f"{name}.jsonl")
        if self.config.scale == "nano":
            what = (f"--environments={','.join(_ATTEMPTED[stage])}", "--difficulties=0-3", "--problems=200",
                    "--attempts=8", "--thinking_budget=112", "--answer_budget=28", "--tail=48", "--slots=64",
                    "--dtype=float32")  # fmt: skip
        else:
            # The report's share of prompts with attempts is of mathematics, and so are the words of these.
            what = (f"--environments=file:{self._files(stage)}/math.jsonl", "--difficulties=0", "--problems=4000",
                    "--attempts=16", "--thinking_budget=65536")  # fmt: skip
        arguments = (f"--checkpoint={self._model_before(name)}", *what, f"--seed={self.config.seed}",
                     f"--output={output}")  # fmt: skip
        title, module = f"Attempts for {stage}", "experiments.make_attempts"
        return Stage(name, title, "data", module, arguments, self._at("data"), (f"{name}.jsonl",))

    def _search(self, name: str) -> Stage:
        """Markovian RSA: light at nano, the report's default at 8b (VI-A: N 16, C 4, T 2)."""
        if self.config.scale == "nano":
            what = (f"--environments={','.join(_SEARCHED)}", f"--difficulties={_AT}", "--count=24", "--wording=compact",
                    "--n=8", "--c=4", "--t=2", "--beta=112", "--tau=48", "--answer_budget=28", "--dtype=float32",
                    "--slots=64")  # fmt: skip
            benchmarks = [f"{environment}-{_AT}" for environment in _SEARCHED]
        else:
            what = (f"--problems={self.config.data}/markovian_rsa.jsonl", "--n=16", "--c=4", "--t=2", "--beta=16384",
                    "--tau=4096")  # fmt: skip
            benchmarks = ["markovian_rsa"]
        model, output = self._model_before(name), self._at(name)
        arguments = (f"--checkpoint={model}", *what, f"--seed={self.config.seed}", f"--output={output}")
        title = f"Markovian RSA {name.removeprefix('rsa_')} the behavioural stage"
        products = tuple(f"{benchmark}/grades.jsonl" for benchmark in benchmarks)
        return Stage(name, title, "search", "experiments.markovian_rsa", arguments, output, products)

    def _reward(self, name: str) -> Stage:
        steps, seed = self._steps(name), self.config.seed
        initial = self._at("sft", "model") if "sft" in self.names else self.config.initial
        data = f"{self.config.data}/preferences" if self.config.scale == "8b" else ""
        more = (f"--config.seed={seed}", *([f"--config.steps={steps}"] if steps else []))
        given = {"initial": initial, "data": data, "more": more, "products": ("model", "pairs.json")}
        return self._configured("experiments.reward_model", "configs/rl/reward_model.py", name, kind="reward", **given)
