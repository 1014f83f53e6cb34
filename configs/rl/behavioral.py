"""The behavioural stage: what a reward model likes, and instructions that are kept (report, IV-B; 384 steps).

    python -m experiments.rl --config=configs/rl/behavioral.py:scale=nano,phase=chat,initial=out/sft/model,reward=out/reward/model --workdir=out/chat
    python -m experiments.rl --config=configs/rl/behavioral.py:scale=nano,phase=simple,initial=out/chat/model,reward=out/reward/model --workdir=out/simple
    python -m experiments.rl --config=configs/rl/behavioral.py:scale=nano,phase=hard,initial=out/simple/model,reward=out/reward/model --workdir=out/hard

Behind the colon:
    scale     nano, 8b
    phase     chat (the score is the reward), simple, hard (instructions: what breaks one gets 0); in this order
    initial   the model to begin with: of the stage before, of the phase before
    reward    the reward model (configs/rl/reward_model.py)
    judge     instead of one, a model that is asked which of two answers is better: a directory, e.g. that of initial
    gate      of simple and hard: report (the score or 0) or logistic (never turns an order round); nano's is logistic
    steps     0 for the scale's own number
    loop      synchronous or pipelined, devices: as in rlve_gym.py
    seed      of problems and answers
    data      of 8b, the directory of chat.jsonl (kind chat, docs/benchmarks.md)

Advantages are GRPO's, there is no length reward, and the rate is the lowest of all stages. The report discloses neither
its reward model nor how its steps are spread over the phases: these, the gate of nano, and the lengths are ours.
"""  # noqa: E501

from configs.rl.stage import optimizer, stage
from zaya_jax.errors import mistake
from zaya_jax.rl.advantages import AdvantageConfig
from zaya_jax.rl.config import HeldOutConfig
from zaya_jax.rl.generation import Decoding
from zaya_jax.rl.reward_scores import JudgeConfig, RewardModelConfig
from zaya_jax.rl.scheduling import Source
from zaya_jax.rl.scoring import RewardConfig

PHASES = ("chat", "simple", "hard")
RATES = {"nano": 2e-4, "8b": 2e-6}
GATES = {"nano": "logistic", "8b": "report"}
STEPS = {"nano": dict.fromkeys(PHASES, 20), "8b": {"chat": 256, "simple": 64, "hard": 64}}
LENGTHS = {"nano": 512, "8b": 32_768}  # of conversations that are scored
JUDGES = {"nano": {"new_tokens": 64, "capacity": 1024, "slots": 16}, "8b": {"new_tokens": 8192, "capacity": 65_536}}
# Caps keep nano's prompts within its budget: longer ones would end the run.
NANO = {
    "chat": Source("requests"),  # of one difficulty
    "simple": Source("simple_instructions", cap=4),
    "hard": Source("hard_instructions", cap=1),
}
DECODING = Decoding(16, thinking_budget=96, answer_budget=96, slots=64, chunk=64, prompt_budget=144)


def get_config(argument=None):
    """The run; `argument` is what stands behind the colon."""
    own = {"phase": "chat", "reward": "", "judge": "", "gate": ""}
    return stage(argument, "behavioral", {"nano": _nano, "8b": _full}, STEPS, changes=_changes, **own)


def _nano(data, phase, **_):
    return _only(phase, NANO)


def _full(data, phase, **_):
    full = {
        "chat": Source(f"file:{data}/chat.jsonl", cap=0),
        "simple": Source("simple_instructions"),
        "hard": Source("hard_instructions"),
    }
    return _only(phase, full)


def _only(phase, sources):
    if phase not in sources:
        raise mistake("no such phase", where="--config=...:phase", expected=", ".join(sources), found=phase)
    return (sources[phase],)


def _changes(given):
    scale = given.scale
    if bool(given.reward) == bool(given.judge):
        where, expected = "--config=...:reward", "reward=DIR or judge=DIR"
        fix = "train one: python -m experiments.reward_model --config=configs/rl/reward_model.py"
        raise mistake("nothing to score answers with, or two", where=where, expected=expected, fix=fix)
    rewards = RewardConfig(
        AdvantageConfig("grpo"),
        key="score",
        model=RewardModelConfig(given.reward, length=LENGTHS[scale]) if given.reward else None,
        judge=JudgeConfig(given.judge, **JUDGES[scale]) if given.judge else None,
        gate="none" if given.phase == "chat" else given.gate or GATES[scale],
    )
    changes = {"rewards": rewards, "optimizer": optimizer(scale, RATES[scale])}
    if scale == "nano":
        held_out = HeldOutConfig(every=10, difficulties=(0,), problems=32, answers=4)
        changes |= {"decoding": DECODING, "length": 512, "held_out": held_out}
    return changes
