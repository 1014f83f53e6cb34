"""The plan of a cascade: its order, what each stage begins with, and that the commands are ones that there are."""

import functools
import itertools
import re
import runpy

import hypothesis
import pytest
from hypothesis import strategies

from zaya_jax.errors import UserError
from zaya_jax.rl.cascade import CascadeConfig, names, stages

FULL = CascadeConfig("8b", initial="BASE", data="DATA")
CONFIGS = {"nano": CascadeConfig(), "8b": FULL}
POLICIES = {
    "nano": ["sft", "warmup", "rlve_gym", "math_code", "behavioral_chat", "behavioral_simple", "behavioral_hard"],
    "8b": ["sft", "warmup", "rlve_gym", "math_code_1", "math_code_2", "behavioral_chat", "behavioral_simple",
           "behavioral_hard"],
}  # fmt: skip


def told(stage) -> dict[str, str]:
    """What stands behind the colon of a stage's configuration."""
    (config,) = [argument for argument in stage.arguments if argument.startswith("--config=")]
    return dict(part.split("=", 1) for part in config.partition(":")[2].split(","))


def flag(stage, name: str) -> str:
    (value,) = [a.partition("=")[2] for a in stage.arguments if a.startswith(f"--{name}=")]
    return value


@pytest.mark.parametrize("scale", CONFIGS)
def test_the_order_is_the_reports(scale):
    plan = [stage.name for stage in stages(CONFIGS[scale], "W")]
    assert tuple(plan) == names(scale) and len(set(plan)) == len(plan)
    assert [name for name in plan if name in POLICIES[scale]] == POLICIES[scale]
    # Markovian RSA is measured before the behavioural stage, as in the report, and after it.
    behind = plan[plan.index(POLICIES[scale][-4]) + 1 :]
    assert behind == ["rsa_before", "reward_model", *POLICIES[scale][-3:], "rsa_after"]


@pytest.mark.parametrize("scale", CONFIGS)
def test_each_begins_with_the_last_ones_model(scale):
    plan = {stage.name: stage for stage in stages(CONFIGS[scale], "W")}
    policies = POLICIES[scale]
    for before, name in itertools.pairwise(policies):
        assert told(plan[name])["initial"] == f"W/{before}/model" and "model" in plan[before].products
    last = policies[policies.index("behavioral_chat") - 1]
    assert flag(plan["rsa_before"], "checkpoint") == f"W/{last}/model"
    assert flag(plan["rsa_after"], "checkpoint") == "W/behavioral_hard/model"
    assert told(plan["behavioral_hard"])["reward"] == "W/reward_model/model"


@hypothesis.given(strategies.sets(strategies.sampled_from(POLICIES["nano"][1:])))
def test_what_is_left_out_is_passed_over(left_out):
    plan = {stage.name: stage for stage in stages(CascadeConfig(without=tuple(left_out)), "W")}
    kept = [name for name in POLICIES["nano"] if name not in left_out]
    assert not left_out & set(plan)
    for before, name in itertools.pairwise(kept):
        assert told(plan[name])["initial"] == f"W/{before}/model"
    assert flag(plan["rsa_after"], "checkpoint") == f"W/{kept[-1]}/model"


def test_files_come_from_the_stages_in_front():
    """No stage reads below the workdir what no stage before it has made."""
    for config in (CascadeConfig(initial="BASE"), FULL):
        made = set()
        for stage in stages(config, "W"):
            read = re.findall(
                r"W/[\w/.-]+", " ".join(a for a in stage.arguments if not re.match("--(workdir|output)=", a))
            )
            for path in read:
                assert any(path in (product, product.rpartition("/")[0]) for product in made), (stage.name, path)
            made |= {f"{stage.workdir}/{product}" for product in stage.products}


def test_data_is_filtered_by_the_policy_that_learns_from_it():
    plan = {stage.name: stage for stage in stages(FULL, "W")}
    rates = plan["rates_math_code_2"]
    assert flag(rates, "checkpoint") == told(plan["math_code_2"])["initial"] == "W/math_code_1/model"
    assert "--benchmark=W/data/math_code_1/code.jsonl" in rates.arguments, "the second phase filters what is left"
    assert flag(plan["filter_math_code_1_math"], "problems") == "DATA/math_code/math.jsonl"
    assert told(plan["math_code_2"])["data"] == "W/data/math_code_2"
    unfiltered = {stage.name: stage for stage in stages(CascadeConfig("8b", "BASE", "DATA", without=("filter",)), "W")}
    assert told(unfiltered["warmup"])["data"] == "DATA/warmup"


def test_steps_and_seed():
    plan = {s.name: s for s in stages(CascadeConfig(steps=("2", "behavioral=3", "sft=40"), seed=7), "W")}
    steps = {name: told(plan[name]).get("steps") for name in ("sft", "warmup", "behavioral_chat")}
    assert steps == {"sft": "40", "warmup": "2", "behavioral_chat": "3"}
    assert flag(plan["reward_model"], "config.steps") == "2" and flag(plan["sft"], "config.seed") == "7"
    assert told(plan["rlve_gym"])["seed"] == flag(plan["data_train"], "seed") == "7"
    assert "steps" not in told(stages(CascadeConfig(), "W")[2])


@pytest.mark.parametrize("scale", CONFIGS)
def test_the_configurations_take_what_they_are_told(scale, root):
    """A stage that is refused would be so after hours."""
    for stage in stages(CascadeConfig(scale, "BASE", "DATA", steps=("2",), seed=1, without=("attempts",)), "W"):
        file, _, argument = stage.arguments[0].removeprefix("--config=").partition(":")
        if stage.arguments[0].startswith("--config="):
            config = runpy.run_path(str(root / file))["get_config"](argument)
            for changed in re.findall(r"--config\.([\w.]+)=", " ".join(stage.arguments)):
                assert functools.reduce(lambda values, key: values[key], changed.split("."), config) is not None


@pytest.mark.parametrize("config", [CascadeConfig(), FULL])
def test_the_commands_have_these_flags(config, root):
    own = "".join((root / "experiments" / f"{name}.py").read_text() for name in ("search_flags", "launch"))
    for stage in stages(config, "W"):
        text = (root / f"{stage.module.replace('.', '/')}.py").read_text()
        defined = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', text + own)) | {"config"}
        assert {re.match(r"--(\w+)", argument)[1] for argument in stage.arguments} <= defined, stage.name


@pytest.mark.parametrize("given, said", [
    ({"scale": "big"}, "--scale: unknown scale; expected nano or 8b"),
    ({"scale": "8b", "data": "DATA"}, "--initial: is required for 8b"),
    ({"scale": "8b", "initial": "BASE"}, "--data: is required for 8b"),
    ({"steps": ("many",)}, "--steps: no number of steps"),
    ({"steps": ("warmpu=3",)}, "--steps: no such stage"),
    ({"without": ("rlve_gim",)}, "--without: no such stage"),
    ({"without": ("sft",)}, "no model to begin with"),
    ({"without": ("reward_model",)}, "stage behavioral_chat: no reward model"),
    ({"initial": "a,b"}, "--initial: a path with , or ="),
    ({"seed": -1}, "out of range"),
])  # fmt: skip
def test_mistakes(given, said):
    with pytest.raises(UserError, match=re.escape(said)):
        stages(CascadeConfig(**given), "W")
