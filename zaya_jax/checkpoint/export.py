"""Checkpoints written: variables to a Hugging Face directory, and one file layout to the other."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from zaya_jax.checkpoint.config_export import legacy_config, native_config, special_token_ids
from zaya_jax.checkpoint.config_json import SpecialTokens
from zaya_jax.checkpoint.files import new_directory, write_json
from zaya_jax.checkpoint.huggingface import CONFIG_FILE, Checkpoint, open_checkpoint
from zaya_jax.checkpoint.loading import check_values
from zaya_jax.checkpoint.names import FILE_LAYOUTS, FileLayout, FileTensor, file_tensors
from zaya_jax.checkpoint.safetensors import INDEX_FILE, dtype_code, numpy_dtype
from zaya_jax.checkpoint.writer import MAX_SHARD, TensorSpec, write_archive
from zaya_jax.errors import mistake
from zaya_jax.model import layout as layouts
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.execution import Layout
from zaya_jax.model.layout import Variables
from zaya_jax.model.weights import is_layered

Path = pathlib.Path
Values = Callable[[FileTensor], Iterable[np.ndarray]]  # a tensor's values: one array, or one an expert

GENERATION_FILE = "generation_config.json"
EXPORT_DTYPES = ("bfloat16", "float32")
_COMPANIONS = (  # what travels with the weights
    "*.json",
    "*.jinja",
    "chat_templates/*.jinja",
    "*.txt",
    "*.model",
    "README*",
    "LICENSE*",
)


def save(
    directory: Path | str,
    config: ModelConfig,
    variables: Variables,
    layout: Layout,
    *,
    file_layout: FileLayout = "native",
    dtype: str = "bfloat16",
    special_tokens: SpecialTokens | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    max_shard_size: int = MAX_SHARD,
) -> None:
    """Writes variables as a checkpoint of the Hub's format, which transformers 5.23 loads (file layout "native").

    One matrix at a time goes to the host and to disk. The directory appears when everything in it is written and
    on the disk; until then, and after a failure, an older one stays as it was. An older one is replaced if it holds
    nothing that this export does not write.

    Args:
        directory: where to.
        config: the architecture of `variables`.
        variables: every array addressable from this process.
        layout: of `variables`.
        file_layout: "native", or "legacy" for engines that know only the original half-layers.
        dtype: "bfloat16" or "float32" of everything but the router biases, which are float32.
        special_tokens: for config.json and generation_config.json; by default those of ZAYA1-8B.
        extra_files: name -> content of more files (tokenizer, template, README).
        max_shard_size: bytes of tensors in a file.

    Raises:
        UserError: something is in the way, the disk refuses, weights are not finite, or an argument is none of its
            choices.
        ValueError: `variables` is not a tree of this config and layout.
    """
    code, extra_files = _dtype_code(dtype), extra_files or {}
    _check_file_layout(file_layout)
    _check_tree(config, variables, layout)
    written = {CONFIG_FILE, GENERATION_FILE, INDEX_FILE, *extra_files}
    with new_directory(directory, lambda entry: entry.name in written or entry.suffix == ".safetensors") as room:
        write_checkpoint(
            room,
            config,
            file_layout,
            values=lambda tensor: _variables_of(tensor, config, variables, layout),
            code=lambda tensor: "F32" if tensor.weight.exact else code,
            dtype=dtype,
            special_tokens=special_tokens or SpecialTokens(),
            max_shard_size=max_shard_size,
        )
        for name, content in extra_files.items():
            (room / name).write_bytes(content)


def convert(
    source: Path | str,
    target: Path | str,
    file_layout: FileLayout,
    dtype: str | None = None,
    *,
    max_shard_size: int = MAX_SHARD,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes a checkpoint anew in a file layout, from file to file; tokenizer, templates and README go along.

    Args:
        source: a checkpoint of either layout.
        target: a new or empty directory.
        file_layout: "native" or "legacy".
        dtype: "bfloat16" or "float32" of everything but the router biases (float32); None keeps every tensor's own,
            so that there and back gives the same bits.
        max_shard_size: bytes of tensors in a file.
        progress: called with the bytes of tensors written so far, and of all of them.

    Raises:
        UserError: the source is not right, weights are not finite, the target is not empty, or the disk refuses.
    """
    _check_file_layout(file_layout)
    code = None if dtype is None else _dtype_code(dtype)
    opened = open_checkpoint(source)
    if Path(target).expanduser().resolve() == opened.directory.resolve():
        raise mistake("is the source itself", where=target, expected="another directory")
    with new_directory(target) as room:
        write_checkpoint(
            room,
            opened.config,
            file_layout,
            values=opened.chunks,
            code=lambda tensor: _converted_code(opened, tensor, code),
            dtype=dtype or numpy_dtype(opened.tensors["model.embed_tokens.weight"].dtype).name,
            special_tokens=opened.special_tokens,
            where=lambda tensor: _origin(opened, tensor),
            progress=progress,
            max_shard_size=max_shard_size,
        )
        for file in _companions(opened.directory):
            copy = room / file.relative_to(opened.directory)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)


def write_checkpoint(
    room: Path,
    config: ModelConfig,
    file_layout: FileLayout,
    *,
    values: Values,
    code: Callable[[FileTensor], str],
    dtype: str,
    special_tokens: SpecialTokens,
    where: Callable[[FileTensor], str] = lambda tensor: f"tensor {tensor.name}",
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> None:
    """Writes weights, config.json and generation_config.json into an existing directory.

    Args:
        room: the directory.
        config: the architecture.
        file_layout: "native" or "legacy".
        values: gives the values of a tensor, in any dtype.
        code: gives the dtype that a tensor is stored in, as a code of the format.
        dtype: what config.json says.
        special_tokens: what config.json says.
        where: names a tensor in errors.
        progress: called with the bytes of tensors written so far, and of all of them.
        options: for `writer.write_archive`.
    """
    tensors = {tensor.name: tensor for tensor in file_tensors(config, file_layout)}
    specs = [TensorSpec(name, code(tensor), tensor.shape) for name, tensor in tensors.items()]
    written, total = 0, sum(spec.nbytes for spec in specs)

    def chunks(spec: TensorSpec) -> Iterator[np.ndarray]:
        nonlocal written
        for chunk in values(tensors[spec.name]):
            chunk = chunk.astype(numpy_dtype(spec.dtype), copy=False)
            check_values(chunk, where(tensors[spec.name]))
            yield chunk
            written += chunk.nbytes
            if progress is not None:
                progress(written, total)

    write_archive(room, specs, chunks, **options)
    to_json = native_config if file_layout == "native" else legacy_config
    write_json(room / CONFIG_FILE, to_json(config, special_tokens, dtype))
    write_json(room / GENERATION_FILE, special_token_ids(special_tokens))


def _variables_of(tensor: FileTensor, config: ModelConfig, variables: Variables, layout: Layout):
    """Gives the matrices of a tensor, one at a time, from a tree of variables."""
    collection, *rest = tensor.path.split("/")
    tree, place = variables[collection], ()
    if is_layered(tensor.path):
        _, *rest = rest
        period = config.period
        stacked = layout == "stacked"
        tree = tree["layers"][f"block_{tensor.layer % period}" if stacked else tensor.layer]
        place = (tensor.layer // period,) if stacked else ()
    for key in rest:
        tree = tree[key]
    for expert in tensor.experts:
        yield _host(tree, place if expert is None else (*place, expert))


def _host(leaf: Any, place: tuple[int, ...]) -> np.ndarray:
    """One matrix of an array (or of a tuple of arrays) as numpy; only that much leaves the device."""
    if isinstance(leaf, tuple):
        leaf, place = leaf[place[-1]], place[:-1]
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        raise ValueError("an array is spread over several processes; gather the variables before saving them")
    if isinstance(leaf, jax.Array) and (leaf.sharding.num_devices > 1 or leaf.platform() != "cpu"):
        return np.asarray(leaf[place])
    return np.asarray(leaf)[place]


def _check_tree(config: ModelConfig, variables: Variables, layout: Layout) -> None:
    wanted = layouts.abstract(config, layout, "float32")
    found = {collection: variables[collection] for collection in wanted}
    shapes = [
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (wanted, found)
    ]
    wrong = [name for name in shapes[0] | shapes[1] if shapes[0].get(name) != shapes[1].get(name)]
    if wrong:
        expected, have = (tree.get(wrong[0]) for tree in shapes)
        raise ValueError(f"variables{wrong[0]}: expected {expected}, found {have} ({layout} layout)")


def _converted_code(source: Checkpoint, tensor: FileTensor, code: str | None) -> str:
    if code is not None:
        return "F32" if tensor.weight.exact else code
    stored = {source.locate(tensor.path, tensor.layer, expert)[0].dtype for expert in tensor.experts}
    return stored.pop() if len(stored) == 1 else dtype_code(np.float32)


def _origin(source: Checkpoint, tensor: FileTensor) -> str:
    """Where the values of a tensor come from, for errors."""
    info, _ = source.locate(tensor.path, tensor.layer, tensor.experts[0])
    return f"{info.file}, tensor {info.name}"


def _companions(directory: Path) -> list[Path]:
    files = {file for pattern in _COMPANIONS for file in directory.glob(pattern) if file.is_file()}
    return sorted(file for file in files if file.name != CONFIG_FILE and not file.name.endswith(".index.json"))


def _check_file_layout(file_layout: str) -> None:
    if file_layout not in FILE_LAYOUTS:
        raise mistake("unknown layout", where="layout", expected=" or ".join(FILE_LAYOUTS), found=repr(file_layout))


def _dtype_code(dtype: str) -> str:
    if dtype not in EXPORT_DTYPES:
        raise mistake("unknown dtype", where="dtype", expected=" or ".join(EXPORT_DTYPES), found=repr(dtype))
    return dtype_code(np.dtype(dtype))
