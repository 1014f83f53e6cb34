"""A Hugging Face directory of ZAYA1 weights, opened: layout, architecture and tensors known, no weight read yet."""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterator, Mapping

import numpy as np

from zaya_jax.checkpoint.config_json import SpecialTokens, read_config, refuse_kind
from zaya_jax.checkpoint.files import read_json
from zaya_jax.checkpoint.names import (
    FileLayout,
    FileTensor,
    check_tensors,
    dimensions,
    file_tensors,
    identify,
    parameter_count,
    tensor_name,
)
from zaya_jax.checkpoint.safetensors import Archive, TensorInfo, open_directory
from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.weights import Weight, weights

Path = pathlib.Path

CONFIG_FILE = "config.json"
TIED_HEAD = "lm_head.weight"
DTYPES = ("BF16", "F16", "F32")  # that weights may be stored in


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """An opened checkpoint. Its tensors are those that its architecture asks for, no more, no less, of right shapes.

    Attributes:
        directory: where it lies.
        layout: of the files, "native" or "legacy".
        config: the architecture.
        special_tokens: as in config.json.
        archive: the files.
        tensors: the table's name of each tensor -> where it lies (in the file it may be spelled differently).
    """

    directory: Path
    layout: FileLayout
    config: ModelConfig
    special_tokens: SpecialTokens
    archive: Archive
    tensors: Mapping[str, TensorInfo]

    def read(self, path: str, layer: int = 0, expert: int | None = None) -> np.ndarray:
        """A weight of the table, of one layer, of one expert: a read-only view of the mapped file, `weight.shape`."""
        info, inner = self.locate(path, layer, expert)
        view = self.archive.read(info.name)
        return view if inner is None else view[inner]

    def locate(self, path: str, layer: int = 0, expert: int | None = None) -> tuple[TensorInfo, int | None]:
        """The tensor that holds a weight, and the index in it that is the expert's (None: all of it)."""
        weight = self._table[path]
        info = self.tensors[tensor_name(weight, self.layout, self.config.num_layers, layer, expert)]
        return info, expert if self.layout == "native" else None

    def chunks(self, tensor: FileTensor) -> Iterator[np.ndarray]:
        """The values of a tensor of either layout, in order, as views: one, or one an expert."""
        for expert in tensor.experts:
            yield self.read(tensor.path, tensor.layer, expert)

    def balancing_biases(self) -> np.ndarray:
        """The router biases of all layers, `[L, E + 1]` float32; the last class is the skip class."""
        path = "balance/layers/router/biases"
        return np.stack([self.read(path, layer).astype(np.float32) for layer in range(self.config.num_layers)])

    @functools.cached_property
    def _table(self) -> dict[str, Weight]:
        return weights(self.config)


@dataclasses.dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint is, from its headers.

    Attributes:
        num_parameters: trained parameters: without balancing biases and a redundant head.
        num_bytes: of tensor data.
        dtypes: code of the format -> number of tensors.
        files: name -> bytes.
    """

    directory: Path
    layout: FileLayout
    config: ModelConfig
    special_tokens: SpecialTokens
    num_tensors: int
    num_parameters: int
    num_bytes: int
    dtypes: Mapping[str, int]
    files: Mapping[str, int]


def open_checkpoint(directory: Path | str) -> Checkpoint:
    """Opens a checkpoint of either layout, in one file or in shards, and checks everything but the values.

    Raises:
        UserError: something is missing, damaged, contradictory or of a kind that is not supported.
    """
    directory = Path(directory).expanduser()
    if not directory.is_dir():
        raise mistake("no such directory", where=directory, fix="give a directory that holds config.json and weights")
    refuse_kind(read_json(directory / CONFIG_FILE), directory / CONFIG_FILE)
    archive = open_directory(directory)
    layout, spelling = identify(archive.tensors, directory)
    tensors = {name: archive.tensors[theirs] for name, theirs in spelling.items()}
    head = tensors.pop(TIED_HEAD, None)
    found = dimensions(tensors, layout, directory)
    config, special_tokens = read_config(directory / CONFIG_FILE, found, layout)
    check_tensors(file_tensors(config, layout), tensors, directory)
    if head is not None:
        _check_head(head, tensors["model.embed_tokens.weight"])
    for info in tensors.values():
        _check_dtype(info)
    return Checkpoint(directory, layout, config, special_tokens, archive, tensors)


def describe(checkpoint: Checkpoint | Path | str) -> CheckpointInfo:
    """What a checkpoint (opened, or its directory) is, without reading a weight. Raises as `open_checkpoint`."""
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint)
    infos = opened.archive.tensors.values()
    return CheckpointInfo(
        directory=opened.directory,
        layout=opened.layout,
        config=opened.config,
        special_tokens=opened.special_tokens,
        num_tensors=len(infos),
        num_parameters=parameter_count(file_tensors(opened.config, opened.layout)),
        num_bytes=sum(info.nbytes for info in infos),
        dtypes=collections.Counter(info.dtype for info in infos),
        files={file.name: file.stat().st_size for file in opened.archive.files},
    )


def reachable_skip_layers(biases: np.ndarray) -> list[int]:
    """The layers whose router could choose the skip class, given its biases `[L, E + 1]`.

    The skip class wins only if p_skip + b_skip > p_e + b_e for all experts. As p_skip <= 1 and p_e >= 0, it never does
    where 1 + b_skip <= max b_e, which holds in every layer of ZAYA1-8B and 74B.
    """
    return [layer for layer, b in enumerate(biases) if not 1 + b[-1] <= b[:-1].max()]


def resolve(path_or_repo: Path | str) -> Path:
    """The local directory of a checkpoint: the path itself, or a download of `owner/name` (`owner/name@revision`).

    Raises:
        UserError: there is no such directory, and it is no repository of the Hub that can be reached.
    """
    path = Path(path_or_repo).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise mistake("is a file", where=path, expected="a checkpoint's directory", fix=f"give {path.parent}")
    repository = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", str(path_or_repo))
    if not repository or str(path_or_repo).startswith("."):
        expected = "a directory, or owner/name of the Hugging Face Hub"
        raise mistake("no such directory", where=path_or_repo, expected=expected)
    return _download(*repository.groups())


def _download(repository: str, revision: str | None) -> Path:
    try:
        import huggingface_hub
    except ImportError:
        expected = "the package huggingface_hub to download it"
        fix = "pip install -e '.[hub]', or give a local directory"
        raise mistake("no such directory", where=repository, expected=expected, fix=fix) from None
    patterns = ["*.json", "*.safetensors", "*.jinja", "tokenizer*"]
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:  # whatever the network and the Hub come up with is for the user to read
        found = f"{type(error).__name__}: {str(error)[:200]}"
        what, fix = "neither a directory nor a reachable repository", "check the name and the network"
        raise mistake(what, where=repository, found=found, fix=fix) from None


def _check_dtype(info: TensorInfo) -> None:
    if info.dtype not in DTYPES:
        fix = "quantized weights are not supported: use the bfloat16 checkpoint" if info.dtype[0] in "FIU" else ""
        fix = "export it in bfloat16 or float32" if info.dtype == "F64" else fix
        where = f"{info.file}, tensor {info.name}"
        raise mistake("unsupported dtype", where=where, expected=", ".join(DTYPES), found=info.dtype, fix=fix)


def _check_head(head: TensorInfo, embedding: TensorInfo) -> None:
    if (head.dtype, head.shape) != (embedding.dtype, embedding.shape):
        expected = f"{embedding.dtype} {list(embedding.shape)}, as the embedding it is tied to, or no such tensor"
        where, found = f"{head.file}, tensor {head.name}", f"{head.dtype} {list(head.shape)}"
        raise mistake("untied heads are not supported", where=where, expected=expected, found=found)


def check_tied_head(checkpoint: Checkpoint) -> None:
    """Checks that a redundant `lm_head.weight`, where there is one, equals the embedding (reads both).

    Raises:
        UserError: it does not.
    """
    if TIED_HEAD not in checkpoint.archive.tensors:
        return
    head = checkpoint.archive.read(TIED_HEAD).reshape(-1).view(np.uint8)
    tied = checkpoint.read("params/embedding").reshape(-1).view(np.uint8)
    step = 2**24
    if any(not np.array_equal(head[i : i + step], tied[i : i + step]) for i in range(0, head.size, step)):
        where = f"{checkpoint.directory}, tensor {TIED_HEAD}"
        expected, found = "the values of model.embed_tokens.weight, to which it is tied", "others"
        raise mistake("untied heads are not supported", where=where, expected=expected, found=found)
