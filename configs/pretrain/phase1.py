"""Pretraining, phase 1: 4,096 tokens a window in the original, RoPE base 10,000 (report, Table II).

    python -m experiments.train --config=configs/pretrain/phase1.py:scale=nano --workdir=out/phase1
    python -m experiments.train --config=configs/pretrain/phase1.py:scale=nano,runlocal --workdir=out/smoke

scale=nano: 1.9M parameters on the sources of Python's standard library, bytes as tokens, about 10 minutes on two cores.
runlocal: the same in 20 short steps, to see that everything works.
"""

from configs.common import as_config, parse
from zaya_jax.data.dataset import DataConfig
from zaya_jax.data.sources import SourceConfig
from zaya_jax.errors import mistake
from zaya_jax.model.config import nano
from zaya_jax.train.config import CheckpointPolicy, Evaluation, RunConfig
from zaya_jax.train.optimizer import OptimizerConfig

SCALES = ("nano",)


def get_config(argument=None):
    """The run; `argument` is what stands behind the colon: scale, runlocal."""
    given = parse(argument, scale="nano", runlocal=False)
    if given.scale not in SCALES:
        raise mistake("unknown scale", where="--config=...:scale", expected=" or ".join(SCALES), found=given.scale)
    steps, length = (20, 64) if given.runlocal else (2000, 256)
    part = SourceConfig(name="python", kind="python_library", path="train")
    held_out = SourceConfig(name="held_out", kind="python_library", path="held_out")
    return as_config(
        RunConfig(
            name="pretrain-1",
            model=nano(),
            data=DataConfig((part,), length=length),
            # Cosine to a third of the peak, as 6e-4 -> 2e-4 in the original; the peak is that of a small model.
            optimizer=OptimizerConfig("muon", learning_rate=1e-2, warmup=0.02, final=1 / 3),
            balance_rate=3e-3,
            rows=8,
            steps=steps,
            evaluation=Evaluation(every=steps // 4, sources=(held_out,)),
            checkpoints=CheckpointPolicy(every=max(steps // 10, 5)),
        )
    )
