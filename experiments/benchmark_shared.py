"""What the benchmarks share. It imports no engine: the time that an import takes is measured too."""

from __future__ import annotations

import os
import sys

from zaya_jax.errors import mistake


def random_tokens(rows: int, columns: int, vocab_size: int):
    """Token ids that are the same for every engine, int32 [rows, columns]."""
    import numpy as np

    return np.random.default_rng(0).integers(0, vocab_size, (rows, columns)).astype(np.int32)


def import_transformers():
    """torch and transformers' model class; without them the process ends with what to install."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import torch
        from transformers import ZayaForCausalLM
    except ImportError as error:
        print(f"error: {error.name} is missing: pip install -e '.[benchmarks]'", file=sys.stderr)
        raise SystemExit(2) from None
    return torch, ZayaForCausalLM


def receive(pipe, engine: str):
    """What an engine's process answers; whoever waits has closed its own copy of the other end."""
    try:
        return pipe.recv()
    except EOFError:
        raise mistake("the engine's process died", where=engine, fix="its error stands above") from None
