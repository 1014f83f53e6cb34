"""From a run's tokenizer and parameters to a model in the hub's format."""

from __future__ import annotations

import pathlib
import re
import tempfile
from collections.abc import Mapping

import jax
from jax.experimental import multihost_utils

from zaya_jax.checkpoint import SpecialTokens, resolve, save
from zaya_jax.checkpoint.processes import by_first
from zaya_jax.checkpoint.train_state import read_manifest, restore
from zaya_jax.errors import mistake
from zaya_jax.model.layout import Variables
from zaya_jax.text.byte_level import write_tokenizer
from zaya_jax.text.tokenizer import Tokenizer, require_tokenizer
from zaya_jax.train.beginning import check_base, load_initial
from zaya_jax.train.lora import export_params
from zaya_jax.train.reward_files import head_files
from zaya_jax.train.reward_model import BACKBONE, HEAD
from zaya_jax.train.sharding import abstract_state
from zaya_jax.train.trainer import Trainer
from zaya_jax.train.workdir import CHECKPOINTS, read_config

BYTES = "bytes"
_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def open_tokenizer(name: str) -> tuple[Tokenizer, dict[str, bytes]]:
    """A tokenizer and the files that go along with a model: "bytes" is the byte-level one, else a checkpoint's.

    Args:
        name: "bytes", a directory, or `owner/name` of the Hub.

    Raises:
        UserError: there is no such directory, or it has no tokenizer.
    """
    if name == BYTES:
        with tempfile.TemporaryDirectory() as directory:
            files = sorted(write_tokenizer(directory).iterdir())
            return require_tokenizer(directory), {file.name: file.read_bytes() for file in files}
    directory = pathlib.Path(name)
    if _of_the_hub(name):
        directory = resolve(name)
    if not directory.is_dir():
        raise mistake("no such directory", where="tokenizer", expected=f"{BYTES!r} or a directory", found=name)
    files = [directory / file for file in _FILES if (directory / file).is_file()]
    return require_tokenizer(directory), {file.name: file.read_bytes() for file in files}


def _of_the_hub(name: str) -> bool:
    return not pathlib.Path(name).exists() and re.fullmatch(r"\w[\w.-]*/[\w.@/-]+", name) is not None


def export_step(workdir: pathlib.Path, target: pathlib.Path, step: int | None = None, dtype: str = "") -> int:
    """Writes the model of a run's checkpoint in the hub's format, on this machine's first device.

    Args:
        workdir: of the run; it is only read.
        target: the new directory.
        step: of the checkpoint; None is the newest.
        dtype: "float32" or "bfloat16"; "" is the run's own.

    Returns:
        The step.

    Raises:
        UserError: there is no such run or checkpoint, it is damaged, or the target is in the way.
    """
    config = read_config(workdir)
    trainer = config.trainer()
    like = abstract_state(trainer, None).variables
    found = restore(workdir / CHECKPOINTS, like, step, partial=True)
    if trainer.lora is not None:
        check_base(config, read_manifest(workdir / CHECKPOINTS / str(found.step)).fingerprint["base"])
    tokenizer, files = open_tokenizer(config.tokenizer)
    base = load_initial(config, trainer.execution.dtype, None) if trainer.lora else None
    save_model(target, trainer, tokenizer, files, found.state, base, dtype or config.export_dtype)
    return found.step


def save_model(
    directory: pathlib.Path,
    trainer: Trainer,
    tokenizer: Tokenizer,
    tokenizer_files: Mapping[str, bytes],
    variables: Variables,
    base: Variables | None = None,
    dtype: str = "float32",
) -> None:
    """Writes a state's variables in the hub's format, adapters merged, a reward head in files of its own beside it.

    It appears whole, and an older one there is replaced.

    With several processes all call this, and each needs memory for all variables: they are gathered.
    """
    frozen = None if base is None else base["params"]
    params = export_params(trainer.model, trainer.lora, variables["params"], frozen)
    variables = {**variables, "params": params}
    if jax.process_count() > 1:
        variables = multihost_utils.process_allgather(variables, tiled=True)
    if trainer.reward is not None:
        tokenizer_files = {**tokenizer_files, **head_files(trainer.reward, variables["params"][HEAD])}
        variables = {**variables, "params": variables["params"][BACKBONE]}
    by_first(lambda: _save(directory, trainer.model, tokenizer, tokenizer_files, variables, dtype))


def _save(directory, config, tokenizer, tokenizer_files, variables, dtype) -> None:
    special = SpecialTokens(bos=tokenizer.bos_id, eos=tokenizer.stop_ids, pad=tokenizer.pad_id)
    save(directory, config, variables, "stacked", dtype=dtype, special_tokens=special, extra_files=tokenizer_files)
