"""The stages' configurations: what the report discloses, in every size; and what they refuse."""

import pytest

from configs.rl import behavioral, math_code, rlve_gym, warmup
from tests.environments.attempt_rows import rows, write
from zaya_jax.environments.families import FAMILIES
from zaya_jax.environments.named import named
from zaya_jax.environments.reasoning_gym import DENIED
from zaya_jax.errors import UserError
from zaya_jax.rl.config import PipelineConfig, RlConfig
from zaya_jax.rl.start_difficulty import Search
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
    assert read(rlve_gym, "initial=DIR,no_length").rewards.length is None
    assert read(rlve_gym, "initial=DIR").rewards.length is not None


def test_no_stage_names_a_data_set_that_is_denied():
    asked = {
        source.environment
        for module, _ in STAGES.values()
        for source in read(module, "scale=8b,initial=D").schedule.sources
    }
    gym = {name.partition(":")[2] for name in asked if name.startswith("reasoning_gym:")}
    assert gym and not gym & set(DENIED)


@pytest.mark.parametrize("name", STAGES)
def test_the_original_is_pipelined_and_nano_is_not(name):
    """Report: weights every two updates, two updates old at most, two batches waited for, devices of their own."""
    module = STAGES[name][0]
    own = read(module, "scale=8b,initial=DIR,devices=8")
    pipeline = own.pipeline
    assert (pipeline.sync_every, pipeline.staleness, pipeline.batches) == (2, 2, 2)
    assert pipeline.devices == 4 and own.mesh.context == 4 and own.decoding.slots % 4 == 0
    assert read(module, "scale=8b,initial=DIR,devices=8,loop=synchronous").pipeline is None
    assert read(module, "initial=DIR").pipeline is None
    assert read(module, "initial=DIR,loop=pipelined").pipeline == PipelineConfig(buffer=16, batches=2)
    with pytest.raises(UserError, match=r"no such loop; expected synchronous or pipelined; found both"):
        read(module, "initial=DIR,loop=both")


def test_start_difficulties_are_sought_where_the_report_does():
    assert read(rlve_gym, "scale=8b,initial=DIR").start == Search()
    assert read(rlve_gym, "initial=DIR").start is None
    assert read(rlve_gym, "initial=DIR,starts=found").start == Search()
    with pytest.raises(UserError, match="no such way; expected found or given; found lost"):
        read(rlve_gym, "initial=DIR,starts=lost")


@pytest.mark.parametrize("scale", ["nano", "8b"])
def test_the_behavioural_stage_is_paid_by_a_reward_model(scale):
    """GRPO with the standard deviation, no length reward, the lowest rate; only the phases with instructions gated."""
    phases = [read(behavioral, f"scale={scale},phase={name},initial=DIR,reward=RM") for name in behavioral.PHASES]
    for own in phases:
        assert own.rewards.advantage.kind == "grpo" and own.rewards.length is None
        assert (own.rewards.key, own.rewards.model.path, own.rewards.judge) == ("score", "RM", None)
        others = [read(module, f"scale={scale},initial=DIR") for module, _ in STAGES.values()]
        assert own.optimizer.learning_rate < min(other.optimizer.learning_rate for other in others)
        assert own.optimizer.momentum == 0 and own.loss == "dppo"
    assert [own.rewards.gate for own in phases] == ["none", *[{"nano": "logistic", "8b": "report"}[scale]] * 2]
    assert [own.schedule.names[0] for own in phases][1:] == ["simple_instructions", "hard_instructions"]
    if scale == "8b":
        assert sum(own.steps for own in phases) == 384 and phases[0].schedule.sources[0].cap == 0
        assert all(own.optimizer.learning_rate == 2e-6 for own in phases)


def test_a_judge_instead_of_a_reward_model():
    own = read(behavioral, "phase=hard,initial=DIR,judge=DIR,gate=report")
    assert own.rewards.model is None and own.rewards.judge.path == "DIR" and own.rewards.gate == "report"


@pytest.mark.parametrize("name", STAGES)
def test_nanos_prompts_have_room_as_far_as_difficulties_rise(name):
    """A run would end otherwise. To 18 where there is no cap, of which nano's budgets of reasoning see nothing."""
    own = read(STAGES[name][0], "initial=DIR")
    for source in own.schedule.sources:
        for difficulty in range(source.start, 1 + (18 if source.cap < 0 else source.cap)):
            prompts = [FAMILIES[source.environment].generate(seed, difficulty).prompt for seed in range(60)]
            assert max(map(len, prompts)) + 21 <= own.decoding.prompt_budget, (source, difficulty)


@pytest.mark.parametrize("name", ["simple", "hard"])
def test_nanos_prompts_and_replies_have_room(name):
    """At the highest difficulty that the schedule reaches, with the 21 tokens that the template adds to a prompt."""
    own = read(behavioral, f"phase={name},initial=DIR,reward=RM")
    (source,) = own.schedule.sources
    environment = named(source.environment)
    for seed in range(150):
        problem = environment.generate(seed, source.cap)
        reasoning, reply = environment.explain(problem)
        assert len(problem.prompt) + 21 <= own.decoding.prompt_budget
        assert len(reasoning) + 2 <= own.decoding.thinking_budget and len(reply) + 3 <= own.decoding.answer_budget


@pytest.mark.parametrize("argument, said", [
    ("initial=DIR", "nothing to score answers with, or two; expected reward=DIR or judge=DIR"),
    ("initial=DIR,reward=A,judge=B", "nothing to score answers with, or two"),
    ("initial=DIR,reward=A,phase=easy", "no such phase; expected chat, simple, hard; found easy"),
    ("initial=DIR,reward=A,phase=hard,gate=soft", "no such gate; expected none, report, logistic; found 'soft'"),
])  # fmt: skip
def test_mistakes_of_the_behavioural_stage(argument, said):
    with pytest.raises(UserError, match=said):
        behavioral.get_config(argument)


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
