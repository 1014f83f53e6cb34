"""A tiny reward model on disk, and judges that need no model."""

from pathlib import Path

import numpy as np

from tests.evaluation.searching import write_roomy
from zaya_jax.train.reward_files import head_files
from zaya_jax.train.reward_model import BradleyTerryConfig

HEAD = np.random.default_rng(5).normal(size=32).astype(np.float32)


def write_reward_model(directory: Path) -> Path:
    """The tiny model of the sampler's tests with a random head."""
    write_roomy(directory)
    for name, content in head_files(BradleyTerryConfig(), HEAD).items():
        (directory / name).write_bytes(content)
    return directory


def shorter(prompt, first, second):
    """Reads: the shorter reply wins, equally long ones tie."""
    if len(first) == len(second):
        return "tie"
    return "first" if len(first) < len(second) else "second"


def stubborn(prompt, first, second):
    """Does not read."""
    return "first"
