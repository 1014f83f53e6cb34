"""The stages' configurations: what the report discloses, in every size; and what they refuse."""

import pytest

from configs.rl import math_code, rlve_gym, warmup
from zaya_jax.environments.families import FAMILIES
from zaya_jax.errors import UserError
from zaya_jax.rl.config import RlConfig
from zaya_jax.train.settings import from_dict

STAGES = {"warmup": (warmup, 232), "rlve_gym": (rlve_gym, 400), "math_code": (math_code, 384)}


def read(module, argument):
    return from_dict(RlConfig, module.get_config(argument).to_dict())


@pytest.mark.parametrize("name", STAGES)
def test_the_original_has_the_reports_numbers(name):
    module, steps = STAGES[name]
    own = read(module, "scale=8b,initial=DIR")
    assert own.name == name and own.steps == steps and own.initial == "DIR"
    assert (own.groups, own.decoding.group_size) == (128, 16)
    assert own.decoding.new_tokens <= 81_920 + 2 and own.decoding.prompt_budget == 20_480
    assert own.rewards.advantage.kind == "max_rl" and own.loss == "dppo" and own.dppo.delta == 0.1
    assert own.aggregation.kind == "sequence_mean_token_sum" and own.balance_rate == 0 and own.replay
    assert own.optimizer.name == "muon" and own.optimizer.momentum == 0
    assert 2e-6 <= own.optimizer.learning_rate <= 1e-5


@pytest.mark.parametrize("name", STAGES)
def test_nano_asks_families_of_our_own(name):
    own = read(STAGES[name][0], "initial=DIR,seed=3")
    assert {source.environment for source in own.schedule.sources} <= set(FAMILIES)
    assert own.seed == own.schedule.seed == 3


def test_phases_and_steps():
    second = read(math_code, "scale=8b,phase=2,initial=DIR,data=PROBLEMS")
    assert second.steps == 464
    assert second.schedule.names[0] == "file:PROBLEMS/code.jsonl"
    assert read(rlve_gym, "initial=DIR,steps=7").steps == 7


@pytest.mark.parametrize("argument, said", [
    ("scale=big,initial=DIR", "unknown scale"),
    ("steps=3", "no model to begin with"),
    ("initail=DIR", "did you mean initial"),
])  # fmt: skip
def test_mistakes(argument, said):
    with pytest.raises(UserError, match=said):
        rlve_gym.get_config(argument)
    with pytest.raises(UserError, match=r"no environment|no such phase"):
        math_code.get_config("scale=8b,phase=3,initial=DIR")
