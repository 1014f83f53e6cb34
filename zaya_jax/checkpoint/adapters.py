"""Adapters in files: `adapter_config.json` and `adapter_model.safetensors`, named as PEFT names them.

A tensor is a weight's name of the hub's layout with `lora_A` (our a, [rank, in]) or `lora_B` (b, [out, rank]) before
its `.weight`, `base_model.model.` before all of it, one a layer:

    base_model.model.model.layers.0.self_attn.qkv_proj.q_proj.lora_A.weight

The matrices of the experts are one parameter of all experts there, and so are their adapters here, with the experts'
axis first: `...layers.0.mlp.experts.gate_up_proj.lora_A.weight` [E, rank, in]. PEFT itself keeps those of such
parameters (`target_parameters`) in shapes of its own: adapters of attention and router are laid out as it reads them,
those of experts are ours alone; merge them (`model.lora.merge`, `checkpoint.save`) for other engines. Nothing here has
been loaded by PEFT.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zaya_jax.checkpoint.files import new_directory, read_json, write_json
from zaya_jax.checkpoint.loading import check_values
from zaya_jax.checkpoint.safetensors import Archive, TensorInfo, read_header
from zaya_jax.checkpoint.writer import TensorSpec, write_file
from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.layout import Slot
from zaya_jax.model.lora import LoraConfig, build_lora, lora_slots
from zaya_jax.model.weights import weights

Path = pathlib.Path

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_ROOM = "model.layers.{layer}."
_AGAIN = "save the adapters again"


def save_adapters(
    directory: Path | str, config: ModelConfig, lora: LoraConfig, adapters: Any, *, base: str = ""
) -> None:
    """Writes adapters in float32. The directory appears whole or not at all; older adapters there are replaced.

    Args:
        directory: where to.
        config: the architecture of the base.
        lora: what the adapters were built from.
        adapters: the stacked tree, every array addressable from this process.
        base: the name or directory of the base, for the reader.

    Raises:
        UserError: something else is in the way, the disk refuses, or values are not finite.
    """
    leaves = {}
    slots = build_lora(config, lora, lambda slot: slot)
    for slot, leaf in zip(jax.tree.leaves(slots), jax.tree.leaves(adapters), strict=True):
        leaves |= {_name(slot, layer): (leaf, place) for place, layer in enumerate(slot.layers)}
    specs = [TensorSpec(name, "F32", tuple(leaf.shape[1:])) for name, (leaf, _) in leaves.items()]

    def chunks(spec: TensorSpec):
        leaf, place = leaves[spec.name]
        values = np.asarray(leaf[place], np.float32)
        check_values(values, f"tensor {spec.name}")
        yield values

    with new_directory(directory, lambda entry: entry.name in (CONFIG_FILE, WEIGHTS_FILE)) as room:
        write_file(room / WEIGHTS_FILE, specs, chunks)
        write_json(room / CONFIG_FILE, _to_json(config, lora, base))


def load_adapters(directory: Path | str, config: ModelConfig, dtype: str = "float32") -> tuple[LoraConfig, Any]:
    """Reads what `save_adapters` wrote.

    Args:
        directory: of the two files.
        config: the architecture of the base.
        dtype: of the arrays.

    Returns:
        The configuration, its targets matrix by matrix, and the stacked tree of adapters.

    Raises:
        UserError: a file is missing or damaged, or the adapters are not of this architecture.
    """
    directory = Path(directory)
    lora = _from_json(directory / CONFIG_FILE, config)
    file = directory / WEIGHTS_FILE
    archive = Archive(directory, read_header(file), (file,))
    _check_names(archive.tensors, build_lora(config, lora, lambda slot: slot), file)

    def make(slot: Slot) -> jax.Array:
        parts = [_read(archive, _name(slot, layer), slot.weight.shape, file) for layer in slot.layers]
        return jnp.asarray(np.stack(parts), slot.dtype(dtype))

    return lora, build_lora(config, lora, make)


def _name(slot: Slot, layer: int) -> str:
    return slot.weight.native.format(layer=layer)


def _modules(config: ModelConfig) -> dict[str, str]:
    """The name of a matrix within its layer, as config.json lists it -> its path in the table."""
    table = {path: w for path, w in weights(config).items() if w.update == "muon"}
    return {w.native.removeprefix(_ROOM).removesuffix(".weight"): path for path, w in table.items()}


def _to_json(config: ModelConfig, lora: LoraConfig, base: str) -> dict[str, Any]:
    table = lora_slots(config, lora)
    names = {name: table[path].a.per_expert for name, path in _modules(config).items() if path in table}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [name for name, of_experts in names.items() if not of_experts],
        "target_parameters": [name for name, of_experts in names.items() if of_experts],
        "inference_mode": True,
    }


def _from_json(file: Path, config: ModelConfig) -> LoraConfig:
    values, modules = read_json(file), _modules(config)
    keys = ("r", "lora_alpha", "target_modules", "target_parameters")
    kinds = (int, (int, float), list, list)
    for key, kind in zip(keys, kinds, strict=True):
        if not isinstance(values.get(key), kind) or isinstance(values[key], bool):
            raise mistake("malformed", where=f"{file}, key {key}", found=repr(values.get(key)), fix=_AGAIN)
    names = [*values["target_modules"], *values["target_parameters"]]
    if unknown := [name for name in names if name not in modules]:
        expected = ", ".join(modules)
        raise mistake("adapts what the model lacks", where=file, expected=expected, found=repr(unknown[0]))
    targets = tuple(modules[name].removeprefix("params/layers/") for name in names)
    return LoraConfig(values["r"], float(values["lora_alpha"]), targets)


def _check_names(tensors: Mapping[str, TensorInfo], slots: Any, file: Path) -> None:
    asked = {_name(slot, layer) for slot in jax.tree.leaves(slots) for layer in slot.layers}
    missing, extra = sorted(asked - set(tensors)), sorted(set(tensors) - asked)
    if missing or extra:
        found = f"{len(missing)} missing, {len(extra)} unexpected, {(missing + extra)[0]} among them"
        what, expected = "the tensors are not those of the model's adapters", f"{len(asked)} tensors"
        raise mistake(what, where=file, expected=expected, found=found, fix="is this the adapters' base?")


def _read(archive: Archive, name: str, shape: tuple[int, ...], file: Path) -> np.ndarray:
    values, where = archive.read(name), f"{file}, tensor {name}"
    if values.shape != shape or values.dtype != np.float32:
        found = f"{values.dtype} {list(values.shape)}"
        raise mistake("is not of this model", where=where, expected=f"float32 {list(shape)}", found=found)
    check_values(values, where)
    return values
