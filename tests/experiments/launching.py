"""Launchers, run as a user runs them, and a small checkpoint for them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.sampling.models import CONFIG, tiny
from zaya_jax.checkpoint import SpecialTokens, save
from zaya_jax.text.byte_level import BOS_ID, IM_END_ID, PAD_ID, write_tokenizer

ROOT = Path(__file__).resolve().parents[2]


def write_tiny(directory: Path) -> Path:
    """The tiny model of the sampler's tests, in float32, with the byte-level tokenizer."""
    tokens = SpecialTokens(bos=BOS_ID, eos=(IM_END_ID,), pad=PAD_ID)
    save(directory, CONFIG, tiny()[1], "stacked", dtype="float32", special_tokens=tokens)
    write_tokenizer(directory)
    return directory


def launch(name: str, *flags: str, stdin: str = "") -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `python -m experiments.NAME`."""
    command = [sys.executable, "-m", f"experiments.{name}", *map(str, flags)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, input=stdin, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def saved(path: Path, array: np.ndarray) -> Path:
    """The path of an array that has been written to it."""
    np.save(path, array)
    return path
