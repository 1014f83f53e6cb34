"""The phases: every configuration is a run, and its plan is what the docstring says."""

import importlib.util
import json
import re

import pytest

from tests.experiments.launching import launch
from zaya_jax.errors import UserError
from zaya_jax.train.config import OPERATIONAL, RunConfig
from zaya_jax.train.plan import plan
from zaya_jax.train.plan_config import setup_of
from zaya_jax.train.settings import from_dict, to_dict

PHASES = ("pretrain/phase1", "pretrain/phase2", "midtrain/midtrain", "sft/sft")
# tokens, longest position, rotary base: Table II of the report
TABLE_II = {
    "pretrain/phase1": (8e12, 4096, 1e4),
    "pretrain/phase2": (4e12, 4096, 1e4),
    "midtrain/midtrain": (1.2e12, 32768, 1e6),
    "sft/sft": (6.6e11, 131072, 5e6),
}


@pytest.fixture
def configured(root):
    def configured(phase, argument=""):
        spec = importlib.util.spec_from_file_location("phase", root / f"configs/{phase}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return from_dict(RunConfig, module.get_config(argument).to_dict())

    return configured


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("argument", ["", "scale=nano", "scale=small,devices=1", "scale=8b,runlocal"])
def test_configurations_are_runs(configured, phase, argument):
    config = configured(phase, argument)
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert (config.steps == 20) == ("runlocal" in argument)
    assert config.data.mixture()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("devices, topology", [(8, "1x8"), (1024, "128x8")])
def test_the_phases_of_the_8b_are_the_reports_and_fit(configured, phase, devices, topology):
    config = configured(phase, f"scale=8b,devices={devices}")
    tokens, length, theta = TABLE_II[phase]
    assert config.tokens_per_step == 4096 * 4096
    assert config.steps * config.tokens_per_step == pytest.approx(tokens, rel=1e-4)
    assert (config.data.length, config.model.max_position_embeddings) == (length, length)
    assert config.model.full_rope.theta == theta
    assert plan(setup_of(config, topology, "mi300x")).fits


def test_shares_are_the_reports(configured):
    """Table III: midtraining and SFT; the aggregation rows are taken from the reasoning."""
    for phase, reasoning in {"midtrain/midtrain": 0.861, "sft/sft": 0.75}.items():
        shares = {source.name: source.weight for source in configured(phase, "scale=8b").data.sources}
        assert shares["long_cot"] + shares.get("aggregation", 0) == pytest.approx(reasoning)


def test_options_of_finetuning(configured):
    assert configured("sft/sft", "lora,initial=base").lora.targets == ("attention", "router", "experts")
    assert configured("sft/sft", "dpo,initial=base").dpo.beta == 0.1
    with pytest.raises(UserError, match="initial: adapters and preferences need a model to begin with"):
        configured("sft/sft", "lora")


def test_switches_in_any_spelling(configured):
    for word in ("lora", "lora=1", "lora=True", "lora=yes"):
        assert configured("sft/sft", f"{word},initial=base").lora
    assert configured("sft/sft", "lora=False").lora is None
    with pytest.raises(UserError, match=r"--config=...:lora: wrong type; expected bool; found 'on'"):
        configured("sft/sft", "lora=on")


@pytest.mark.parametrize("phase", PHASES)
def test_one_device_and_numbers_that_do_not_divide(configured, phase):
    config = configured(phase, "scale=small,devices=1")
    assert setup_of(config, "1x1", "mi300x").devices == 1
    with pytest.raises(UserError, match="a step does not divide; expected a number of them that divides"):
        configured(phase, "scale=8b,devices=48")


def test_a_dry_run_prints_the_plan_and_leaves_nothing(tmp_path):
    code, out, error = launch(
        "train", "--config=configs/midtrain/midtrain.py:scale=8b", "--dry_run", "--topology=1x8", "--chip=mi300x"
    )
    assert (code, error) == (0, "")
    assert "midtrain: 71,525 steps of 16,777,216 tokens" in out
    for words in ("8.840 B parameters", "GFLOP a token", "peak", "fits", "71,525 steps"):
        assert words in out
    code, same, _ = launch(
        "plan", "--config=configs/midtrain/midtrain.py:scale=8b", "--topology=1x8", f"--json={tmp_path / 'plan.json'}"
    )
    assert (code, same) == (0, out)
    assert json.loads((tmp_path / "plan.json").read_text())[0]["fits"] is True


def test_the_page_names_what_may_change(root):
    page = (root / "docs/training.md").read_text().partition("## What may change")[2].partition("## ")[0]
    assert {key.split(".")[0] if key.startswith("execution") else key for key in OPERATIONAL} <= set(
        re.findall(r"`([a-z_.]+)`", page)
    )


def test_a_mesh_that_does_not_divide_ends_in_one_line():
    code, _, error = launch("train", "--config=configs/midtrain/midtrain.py:scale=8b", "--dry_run", "--topology=1x12")
    assert code == 2
    assert error.splitlines() == [
        "error: the mesh does not divide the devices; expected a divisor of 12; found data=-1, fsdp=4, context=2"
    ]
