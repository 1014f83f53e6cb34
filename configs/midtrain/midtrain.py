"""Midtraining: windows of 32,768 tokens, rotary base 1,000,000, long chains of thought; 1.2T tokens (report, Table II).

    python -m experiments.train --config=configs/midtrain/midtrain.py:scale=nano,initial=out/phase2/model --workdir=out/mid
    python -m experiments.train --config=configs/midtrain/midtrain.py:scale=8b,initial=DIR,data=DIR --workdir=out/mid

Behind the colon:
    scale     nano (windows of 2,048 bytes of the standard library), small, 8b
    runlocal  20 short steps of nano's model with all else as the scale has it
    data      directory with a file of each source below, and held_out.jsonl
    devices   how many there will be; two share a row (context parallelism, as in the original)
    initial   the last phase's model, in the hub's format

The shares of the sources are the report's (Table III). The rate is ours: the report gives none.
"""  # noqa: E501

from configs.common import as_config, parse
from configs.scales import batch, scale
from zaya_jax.data.dataset import DataConfig
from zaya_jax.data.sources import SourceConfig
from zaya_jax.train.config import CheckpointPolicy, Evaluation, MeshConfig, RunConfig
from zaya_jax.train.optimizer import OptimizerConfig

LENGTH, THETA, CONTEXT, TOKENS = 32768, 1e6, 2, 1_200_000_000_000
SOURCES = {  # name: (kind, share)
    "long_cot": ("chat", 0.861),
    "web": ("jsonl", 0.057),
    "long_context": ("jsonl", 0.008),
    "code": ("jsonl", 0.03),
    "math": ("jsonl", 0.03),
    "instruct": ("chat", 0.014),
}


def get_config(argument=None):
    """The run; `argument` is what stands behind the colon."""
    given = parse(argument, scale="nano", runlocal=False, data="data/midtrain", initial="", devices=8)
    size, local = scale(given), given.scale == "nano" or given.runlocal
    context = min(given.devices, CONTEXT)
    length = (256 if given.runlocal else 2048) if local else LENGTH
    step = {"rows": 2} if local else batch(size.tokens, length, given.devices, context)
    steps = 20 if given.runlocal else 200 if local else TOKENS // size.tokens
    train = [SourceConfig(n, kind, f"{given.data}/{n}.jsonl", share) for n, (kind, share) in SOURCES.items()]
    python = [SourceConfig("python", "python_library", "train")]
    other = ("python_library", "held_out") if local else ("jsonl", f"{given.data}/held_out.jsonl")
    rate = {"nano": 2e-3, "small": 2e-4, "8b": 1e-4}[given.scale]
    return as_config(
        RunConfig(
            name="midtrain",
            model=size.sized(LENGTH, THETA),
            data=DataConfig(python if local else train, length=length),
            initial=given.initial,
            optimizer=OptimizerConfig(
                "muon", rate, warmup=0.01, final=0.1, newton_schulz_dtype=size.newton_schulz_dtype
            ),
            steps=steps,
            mesh=MeshConfig() if local else MeshConfig(fsdp=min(given.devices, 8) // context, context=context),
            evaluation=Evaluation(steps // 4, (SourceConfig("held_out", *other),), rows=step["rows"]),
            checkpoints=CheckpointPolicy(every=max(min(steps // 10, 500), 5)),
            **step,
            **size.settings(given.initial),
        )
    )
