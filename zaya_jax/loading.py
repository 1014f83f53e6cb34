"""From a checkpoint's directory to a model that can be called."""

from __future__ import annotations

import os

import jax

from zaya_jax.checkpoint import load_variables, open_checkpoint, resolve
from zaya_jax.model import Execution, Zaya
from zaya_jax.model.execution import Layout
from zaya_jax.model.layout import Variables
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.text.tokenizer import Tokenizer, load_tokenizer


def load(
    path: str | os.PathLike[str],
    dtype: str = "bfloat16",
    layout: Layout | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[Zaya, Variables, Tokenizer | None]:
    """Loads a checkpoint as Hugging Face repositories hold it.

    Args:
        path: its directory, or `owner/name` of the Hub.
        dtype: the precision policy, "float32", "bfloat16" or "float64".
        layout: of the weights; by default "unstacked" on a CPU and "stacked" elsewhere.
        mesh: shards the weights over it by `parallel.RULES` (see `make_mesh`); None for one device.

    Returns:
        The model, its variables, and its tokenizer (None if the checkpoint has none).

    Raises:
        UserError: the checkpoint is missing, damaged, contradictory or of a kind that is not supported.
    """
    if layout is None:
        layout = "unstacked" if jax.default_backend() == "cpu" else "stacked"
    execution = Execution(dtype=dtype, layout=layout)
    checkpoint = open_checkpoint(resolve(path))
    tokenizer = load_tokenizer(checkpoint.directory)
    placed = None if mesh is None else slot_sharding(mesh)
    return Zaya(checkpoint.config, execution), load_variables(checkpoint, layout, dtype, shardings=placed), tokenizer
