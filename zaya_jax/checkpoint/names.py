"""The tensors of a checkpoint file: which the weight table asks for, and which layout a list of names belongs to."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from zaya_jax.checkpoint.safetensors import TensorInfo
from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig, nano
from zaya_jax.model.weights import Weight, is_layered, weights

FileLayout = Literal["native", "legacy"]
FILE_LAYOUTS = ("native", "legacy")


@dataclasses.dataclass(frozen=True)
class FileTensor:
    """One tensor of a checkpoint file.

    Attributes:
        name: in the file's layout.
        path: the weight's path in the table.
        weight: its declaration.
        layer: the layer, 0 for a weight of the model itself.
        expert: the one expert it holds, or None for all of them (or where there are none).
    """

    name: str
    path: str
    weight: Weight
    layer: int = 0
    expert: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.weight.shape if self.expert is None else self.weight.shape[1:]

    @property
    def experts(self) -> tuple[int | None, ...]:
        """The experts it holds, in order; (None,) where there are none."""
        if not self.weight.per_expert:
            return (None,)
        return tuple(range(self.weight.shape[0])) if self.expert is None else (self.expert,)


@dataclasses.dataclass(frozen=True)
class Dimensions:
    """What the shapes of a checkpoint's tensors say about the architecture."""

    num_layers: int
    vocab_size: int
    hidden_size: int
    num_query_heads: int
    num_kv_heads: int
    head_dim: int
    num_experts: int
    expert_hidden_size: int
    router_hidden_size: int


def file_tensors(config: ModelConfig, layout: FileLayout) -> list[FileTensor]:
    """Every tensor of a checkpoint in the order of the forward pass (the final norm stands with the embedding)."""
    table = weights(config)
    model = [t for path, w in table.items() if not is_layered(path) for t in _copies(config, layout, path, w, 0)]
    layered = [(path, w) for path, w in table.items() if is_layered(path)]
    layers = range(config.num_layers)
    return model + [t for layer in layers for path, w in layered for t in _copies(config, layout, path, w, layer)]


def tensor_name(weight: Weight, layout: FileLayout, num_layers: int, layer: int, expert: int | None = None) -> str:
    """The name of a weight of one layer (of one expert, in the legacy layout)."""
    template = weight.native if layout == "native" else weight.legacy
    name = template.format(layer=layer, even=2 * layer, odd=2 * layer + 1, next=2 * layer + 2, expert=expert)
    return name.replace(f"model.layers.{2 * num_layers}.", "model.") if layout == "legacy" else name


def identify(names: Iterable[str], where: object) -> tuple[FileLayout, dict[str, str]]:
    """Finds the layout of a checkpoint by its tensors' names.

    Returns:
        The layout, and {name in that layout: name in the file}; they differ where an older spelling was used.

    Raises:
        UserError: names of both layouts, of neither, or of a kind of ZAYA1 that is not supported.
    """
    names = list(names)
    refuse_kind(names, where)
    renamed = [_rename(name, _OLD_SPELLINGS) for name in names]
    native = [name for name in renamed if ".mlp.experts.gate_up_proj" in name]
    legacy = [name for name in renamed if ".zaya_block." in name]
    if native and legacy:
        found = f"{native[0]} and {legacy[0]}"
        raise mistake("both layouts at once", where=where, expected="native or legacy", found=found, fix=_REPAIR)
    if not native and not legacy:
        expected = "tensors like model.layers.0.mlp.experts.gate_up_proj"
        found = ", ".join(names[:3]) or "no tensors"
        raise mistake("not a ZAYA1 checkpoint", where=where, expected=expected, found=found)
    if native:
        renamed = [_rename(name, _EARLY_NATIVE) for name in renamed]
    table = dict(zip(renamed, names, strict=True))
    if len(table) < len(names):
        first, second = next((table[new], old) for new, old in zip(renamed, names, strict=True) if table[new] != old)
        raise mistake("two spellings of one tensor", where=where, found=f"{second} and {first}", fix=_REPAIR)
    return ("native" if native else "legacy"), table


def refuse_kind(names: Iterable[str], where: object) -> None:
    """Refuses, by name, the kinds of ZAYA1 checkpoints that are not supported.

    Raises:
        UserError: a tensor of the vision-language model, or of quantized experts.
    """
    for name in names:
        if any(mark in name for mark in _VISION):
            fix = "zaya_jax reads text models: ZAYA1-8B, ZAYA1-74B-preview, ZAYA1-base and ZAYA1-reasoning-base"
            raise mistake("ZAYA1-VL checkpoints are not supported", where=where, found=f"tensor {name}", fix=fix)
        if name.endswith(_QUANTIZED):
            fix = "use the bfloat16 checkpoint it was made from, e.g. Zyphra/ZAYA1-8B"
            raise mistake("quantized experts are not supported", where=where, found=f"tensor {name}", fix=fix)


def dimensions(tensors: Mapping[str, TensorInfo], layout: FileLayout, where: object) -> Dimensions:
    """Reads the architecture off the shapes of layer 0.

    Raises:
        UserError: a tensor that this needs is missing or has the wrong number of axes.
    """

    def shape(path: str, rank: int) -> tuple[int, ...]:
        weight = _TEMPLATES[path]
        alone = layout == "legacy" and weight.per_expert
        name = tensor_name(weight, layout, num_layers, 0, expert=0)
        if name not in tensors:
            raise mistake("tensor is missing", where=where, expected=name, fix=_REPAIR)
        found = tensors[name].shape
        rank -= alone
        if len(found) != rank or 0 in found:
            expected = f"{rank} axes, none of them empty"
            raise mistake("tensor is misshapen", where=f"{where}, tensor {name}", expected=expected, found=list(found))
        return found

    num_layers = _count_layers(tensors, layout)
    if not 1 <= num_layers <= _MAX_LAYERS:
        raise mistake("absurd number of layers", where=where, expected=f"1 to {_MAX_LAYERS}", found=num_layers)
    vocab_size, hidden_size = shape("params/embedding", 2)
    head_dim = shape("params/layers/attention/grouped_weight", 3)[1]
    return Dimensions(
        num_layers=num_layers,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_query_heads=max(1, shape("params/layers/attention/q_proj", 2)[0] // head_dim),
        num_kv_heads=max(1, shape("params/layers/attention/k_proj", 2)[0] // head_dim),
        head_dim=head_dim,
        num_experts=max(1, shape("params/layers/router/out_weight", 2)[0] - 1),
        expert_hidden_size=shape("params/layers/experts/down", 3)[-1],
        router_hidden_size=shape("params/layers/router/down_weight", 2)[0],
    )


def check_tensors(expected: Iterable[FileTensor], tensors: Mapping[str, TensorInfo], where: object) -> None:
    """Compares what the table asks for with what is there.

    Raises:
        UserError: tensors are missing, misshapen or too many; one line with the first names and the count of each.
    """
    asked = {tensor.name: tensor.shape for tensor in expected}
    missing = [name for name in asked if name not in tensors]
    extra = [name for name in tensors if name not in asked]
    misshapen = [
        f"{name}: {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in asked.items()
        if name in tensors and tensors[name].shape != shape
    ]
    kinds = {"missing": missing, "unexpected": extra, "misshapen": misshapen}
    if any(kinds.values()):
        report = ", ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names)
        what, found = "the tensors are not those of the architecture", f"{len(tensors)}: {report}"
        raise mistake(what, where=where, expected=f"{len(asked)} tensors", found=found, fix=_REPAIR)


def parameter_count(tensors: Iterable[FileTensor]) -> int:
    """Trained parameters of a list of tensors, as they are counted for the released models."""
    return sum(math.prod(tensor.shape) for tensor in tensors if tensor.weight.update != "frozen")


_MAX_LAYERS = 4096
_REPAIR = "download or export the checkpoint again"
_TEMPLATES = weights(nano())  # names do not depend on the configuration
_VISION = (".attn.self_attn.", "vision_tower.", "model.visual.", "model.language_model.", ".lora_linear_")
_QUANTIZED = ("weight_scale", "weight_packed", "_scale_inv", "_proj_blocks", "_proj_scales", "_proj_scale")
_OLD_SPELLINGS = {
    ".smoe_block.": ".zaya_block.",
    ".zaya_block.experts.gate_up_proj": ".mlp.experts.gate_up_proj",
    ".zaya_block.experts.down_proj": ".mlp.experts.down_proj",
}
_EARLY_NATIVE = {  # while the layout was under review in transformers
    ".mlp.gate.router_mlp.rmsnorm_eda.": ".mlp.gate.router_mlp.norm.",
    ".self_attn.temp": ".self_attn.qk_norm.temp",
    ".post_attention_norm.": ".post_attention_layernorm.",
    ".post_attention_res_scale.": ".post_attention_residual_scale.",
    ".post_mlp_res_scale.": ".post_mlp_residual_scale.",
    "model.final_norm.": "model.norm.",
}


def _copies(config: ModelConfig, layout: FileLayout, path: str, weight: Weight, layer: int) -> Iterator[FileTensor]:
    if is_layered(path) and layer == 0 and not weight.first_layer:
        return
    alone = layout == "legacy" and weight.per_expert
    for expert in range(weight.shape[0]) if alone else (None,):
        name = tensor_name(weight, layout, config.num_layers, layer, expert)
        yield FileTensor(name, path, weight, layer, expert)


def _count_layers(names: Iterable[str], layout: FileLayout) -> int:
    numbers = [int(found[1]) for name in names if (found := re.match(r"model\.layers\.(\d{1,9})\.", name))]
    count = max(numbers, default=-1) + 1
    return count if layout == "native" else (count + 1) // 2


def _rename(name: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        name = name.replace(old, new)
    return name


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
