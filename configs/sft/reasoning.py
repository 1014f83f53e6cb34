"""Supervised finetuning on verifiable tasks with their working: what reinforcement learning begins with.

    mkdir -p out/data
    python -m experiments.make_environment_data --difficulties=0-2 --count=20000 --aggregation=0.25 --output=out/data/train.jsonl
    python -m experiments.make_environment_data --difficulties=0-2 --count=400 --part=held_out --output=out/data/held_out.jsonl
    python -m experiments.train --config=configs/sft/reasoning.py:scale=nano,data=out/data --workdir=out/sft

Behind the colon:
    scale     nano (windows of 512 bytes), small, 8b (the report's reasoning share of SFT, configs/sft/sft.py)
    data      directory with train.jsonl and held_out.jsonl, of kind chat (docs/data.md)
    initial   the model to begin with, in the hub's format; nano may begin with nothing
    devices   how many there will be
    steps     0 for the scale's own number
"""  # noqa: E501

from configs.common import as_config, parse
from configs.scales import batch, scale
from zaya_jax.data.dataset import DataConfig
from zaya_jax.data.sources import SourceConfig
from zaya_jax.train.config import CheckpointPolicy, Evaluation, MeshConfig, RunConfig, Samples
from zaya_jax.train.optimizer import OptimizerConfig

LENGTH, POSITIONS, THETA, TOKENS = 131072, 131072, 5e6, 20_000_000_000
PROMPT = "<|im_start|>user\nadd 47+85<|im_end|>\n<|im_start|>assistant\n"


def get_config(argument=None):
    """The run; `argument` is what stands behind the colon."""
    given = parse(argument, scale="nano", data="data/reasoning", initial="", devices=8, steps=0, runlocal=False)
    size, local = scale(given), given.scale == "nano" or given.runlocal
    length = 512 if local else LENGTH
    step = {"rows": 16} if local else batch(size.tokens, length, given.devices, min(given.devices, 8))
    steps = given.steps or (20 if given.runlocal else 1200 if local else TOKENS // size.tokens)
    rate = {"nano": 1e-2 if not given.initial else 3e-3, "small": 5e-5, "8b": 2e-5}[given.scale]
    sources = [SourceConfig(name, "chat", f"{given.data}/{name}.jsonl") for name in ("train", "held_out")]
    return as_config(
        RunConfig(
            name="sft_reasoning",
            model=size.sized(POSITIONS, THETA),
            data=DataConfig(sources[:1], length=length),
            initial=given.initial,
            optimizer=OptimizerConfig("muon", rate, 0.03, 0.1, newton_schulz_dtype=size.newton_schulz_dtype),
            steps=steps,
            mesh=MeshConfig() if local else MeshConfig(context=min(given.devices, 8)),
            evaluation=Evaluation(max(steps // 6, 1), (sources[1],), rows=step["rows"]),
            samples=Samples(max(steps // 6, 1), (PROMPT,), temperature=0.0),
            checkpoints=CheckpointPolicy(every=max(min(steps // 10, 500), 5)),
            **step,
            **size.settings(given.initial),
        )
    )
