"""The stages' configurations: what the report discloses, in every size; and what they refuse."""

import pytest

from configs.rl import math_code, rlve_gym, warmup
from tests.environments.attempt_rows import rows, write
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


@pytest.mark.parametrize("module, argument, share", [
    (warmup, "scale=nano", 0.125), (math_code, "scale=nano", 0.125), (math_code, "scale=nano,phase=2", 0.194),
    (math_code, "scale=8b", 0.125), (math_code, "scale=8b,phase=2", 0.194),
])  # fmt: skip
def test_prompts_with_attempts_have_the_reports_share(module, argument, share, tmp_path):
    path = write(tmp_path / "a.jsonl", rows())
    own, without = (read(module, f"{argument},initial=DIR{more}") for more in (f",attempts={path}", ""))
    *others, source = own.schedule.sources
    assert tuple(others) == without.schedule.sources
    assert source.share / sum(one.share for one in own.schedule.sources) == pytest.approx(share)
    assert source.environment.startswith(f"attempts:{path}?wording=") and (source.start, source.cap) == (0, 2)
    assert own.decoding.prompt_budget >= 4 * (48 if "nano" in argument else 4096)


@pytest.mark.parametrize("argument, said", [
    ("scale=big,initial=DIR", "unknown scale"),
    ("steps=3", "no model to begin with"),
    ("initail=DIR", "did you mean initial"),
    ("initial=DIR,attempts=a.jsonl", "unknown argument"),
])  # fmt: skip
def test_mistakes(argument, said):
    with pytest.raises(UserError, match=said):
        rlve_gym.get_config(argument)
    with pytest.raises(UserError, match=r"no environment|no such phase"):
        math_code.get_config("scale=8b,phase=3,initial=DIR")
