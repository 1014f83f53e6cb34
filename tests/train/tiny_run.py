"""The configuration of the runs that tests start: `--config=tests/train/tiny_run.py:TEXT_FILE`."""

from configs.common import as_config
from tests.train.models import tiny
from zaya_jax.data.dataset import DataConfig
from zaya_jax.data.sources import SourceConfig
from zaya_jax.train.config import CheckpointPolicy, Evaluation, RunConfig
from zaya_jax.train.optimizer import OptimizerConfig


def tiny_run(path, **changes) -> RunConfig:
    """40 steps on a text file."""
    text = SourceConfig("text", "text", str(path))
    values = {
        "name": "tiny",
        "model": tiny(vocab_size=272),
        "data": DataConfig((text,), length=32),
        "optimizer": OptimizerConfig("muon", learning_rate=1e-2),
        "rows": 2,
        "steps": 40,
        "checkpoints": CheckpointPolicy(every=3),
        "evaluation": Evaluation(sources=(SourceConfig("again", "text", str(path)),)),
    }
    return RunConfig(**values | changes)


def get_config(path):
    """What a launcher reads."""
    return as_config(tiny_run(path))
