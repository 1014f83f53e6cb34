"""A reward model from pairs of replies (Bradley and Terry), for the behavioural stage.

    python -m experiments.reward_model --config=configs/rl/reward_model.py:scale=nano,initial=out/sft/model --workdir=out/reward
    python -m experiments.reward_model --config=configs/rl/reward_model.py:scale=8b,initial=DIR,data=DIR --workdir=out/reward

Behind the colon:
    scale     nano (windows of 512 bytes; without data, pairs made on the spot by a known rule), small, 8b
    runlocal  20 short steps of nano's model with all else as the scale has it
    data      directory with preferences.jsonl and held_out.jsonl (kind preference, docs/data.md)
    devices   how many there will be
    initial   the model that it begins with, in the hub's format: the policy's own SFT checkpoint, usually

The report does not say which reward model its behavioural stage used, nor how it was trained; length, rate, steps and
the centring penalty are ours.
"""  # noqa: E501

from configs.common import as_config, parse
from configs.scales import batch, scale
from zaya_jax.data.dataset import DataConfig
from zaya_jax.data.sources import SourceConfig
from zaya_jax.train.config import CheckpointPolicy, Evaluation, RunConfig
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.reward_model import BradleyTerryConfig

LENGTH, POSITIONS, THETA, TOKENS = 8192, 131072, 5e6, 500_000_000


def get_config(argument=None):
    """The run; `argument` is what stands behind the colon."""
    given = parse(argument, scale="nano", runlocal=False, data="", initial="", devices=8)
    size, local = scale(given), given.scale == "nano" or given.runlocal
    length = 512 if local else LENGTH
    step = {"rows": 8} if local else batch(size.tokens // 16, length, given.devices)
    steps = 20 if given.runlocal else 600 if local else TOKENS // (size.tokens // 16)
    rate = {"nano": 1e-3, "small": 1e-5, "8b": 3e-6}[given.scale]
    train, held_out = _sources(given, local)
    return as_config(
        RunConfig(
            name="reward_model",
            model=size.sized(POSITIONS, THETA),
            data=DataConfig((train,), length=length),
            initial=given.initial,
            optimizer=OptimizerConfig("adamw", rate, warmup=0.05, final=0.1, weight_decay=0.0),
            balance_rate=0.0,
            reward=BradleyTerryConfig(centring=0.01),
            steps=steps,
            evaluation=Evaluation(max(steps // 6, 1), (held_out,), rows=step["rows"]),
            checkpoints=CheckpointPolicy(every=max(steps // 6, 5)),
            **step,
            **size.settings(given.initial),
        )
    )


def _sources(given, local):
    if local and not given.data:
        return [SourceConfig(name, "made_preferences", name) for name in ("train", "held_out")]
    folder = given.data or "data/preferences"
    return [SourceConfig(name, "preference", f"{folder}/{name}.jsonl") for name in ("preferences", "held_out")]
