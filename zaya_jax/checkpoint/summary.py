"""What a checkpoint holds, and whether it looks sound: from its headers and its small vectors, in seconds.

No matrix is read: of ZAYA1-8B (17.7 GB) the headers and 1 MB of vectors.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from zaya_jax.checkpoint.files import read_json
from zaya_jax.checkpoint.huggingface import TIED_HEAD, Checkpoint, CheckpointInfo, describe, reachable_skip_layers
from zaya_jax.checkpoint.names import FileLayout, FileTensor, file_tensors
from zaya_jax.checkpoint.writer import LINE
from zaya_jax.model.cache import ring_size
from zaya_jax.model.config import LayerType, ModelConfig, zaya1_8b, zaya1_74b
from zaya_jax.model.weights import count_active_parameters, count_parameters
from zaya_jax.report.findings import Finding

Range = tuple[float, float]  # the least and the greatest


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """One layer.

    Attributes:
        kind: "full" or "sliding".
        window: keys that a query sees; None is all.
        theta: the base of the rotary embedding.
        num_parameters: trained ones.
        temperature: of the heads' keys.
        expert_bias: balancing biases of the experts.
        skip_bias: balancing bias of the skip class.
        skip_reachable: whether the router could choose the skip class.
    """

    kind: LayerType
    window: int | None
    theta: float
    num_parameters: int
    temperature: Range
    expert_bias: Range
    skip_bias: float
    skip_reachable: bool


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a checkpoint holds.

    Attributes:
        info: from its headers.
        num_active: parameters that one token meets: one expert of each layer and all else, without the embedding.
        layers: one entry a layer.
        findings: what was checked.
    """

    info: CheckpointInfo
    num_active: int
    layers: tuple[LayerSummary, ...]
    findings: tuple[Finding, ...]


def summarize(checkpoint: Checkpoint) -> Summary:
    """Summarizes an opened checkpoint.

    Raises:
        UserError: config.json or tokenizer_config.json is malformed (anything else was refused when it was opened).
    """
    info = describe(checkpoint)
    layers = tuple(_layers(checkpoint))
    findings = (
        _tensors(info, TIED_HEAD in checkpoint.archive.tensors),
        _skip_class(info.config, layers),
        *_values(checkpoint),
        _alignment(checkpoint),
        *_special_tokens(info),
        *_text_files(checkpoint),
    )
    return Summary(info, count_active_parameters(info.config), layers, findings)


def kv_bytes(config: ModelConfig, tokens: int, itemsize: int = 2) -> int:
    """Bytes of keys and values of one row that holds `tokens` tokens; sliding layers keep no more than their window.

    `itemsize` is that of the compute type, 2 for bfloat16. ZAYA1-8B: 40,960 bytes a token.
    """
    slots = sum(ring_size(config, kind, tokens) for kind in config.layer_types)
    return slots * 2 * config.num_kv_heads * config.head_dim * itemsize


def state_bytes(config: ModelConfig) -> int:
    """Bytes of a row's state of fixed size, float32: each layer's convolution inputs and delayed value."""
    return config.num_layers * (2 * config.conv_channels + config.delayed_size) * 4


def expected_tensors(config: ModelConfig, layout: FileLayout) -> int:
    """How many tensors a checkpoint has: 32 L + 3 in the native layout, (2 E + 30) L + 3 in the legacy one."""
    per_layer = 32 if layout == "native" else 2 * config.num_experts + 30
    return per_layer * config.num_layers + 3


def _layers(checkpoint: Checkpoint) -> Iterator[LayerSummary]:
    config, biases = checkpoint.config, checkpoint.balancing_biases()
    reachable = set(reachable_skip_layers(biases))
    sizes = _layer_parameters(file_tensors(config, checkpoint.layout))
    for layer, kind in enumerate(config.layer_types):
        yield LayerSummary(
            kind=kind,
            window=config.window(kind),
            theta=config.rope(kind).theta,
            num_parameters=sizes[layer],
            temperature=_range([checkpoint.read("params/layers/attention/temperature", layer)]),
            expert_bias=_range([biases[layer, :-1]]),
            skip_bias=float(biases[layer, -1]),
            skip_reachable=layer in reachable,
        )


def _layer_parameters(tensors: Iterable[FileTensor]) -> dict[int, int]:
    sizes: dict[int, int] = collections.Counter()
    for tensor in tensors:
        if "/layers/" in tensor.path and tensor.weight.update != "frozen":
            sizes[tensor.layer] += math.prod(tensor.shape)
    return sizes


def _tensors(info: CheckpointInfo, has_head: bool) -> Finding:
    """Opening has compared every tensor with the table of weights; this counts them without it."""
    formula = "32 L + 3" if info.layout == "native" else "(2 E + 30) L + 3"
    known = {count_parameters(config): name for name, config in (("8B", zaya1_8b()), ("74B", zaya1_74b()))}
    right = info.num_tensors == expected_tensors(info.config, info.layout) + has_head
    text = f"{info.num_tensors:,} tensors {'=' if right else 'are not'} {formula}{' + lm_head' if has_head else ''}"
    if info.num_parameters in known:
        text += f", as many parameters as ZAYA1-{known[info.num_parameters]}"
    return Finding("OK" if right else "WARN", f"{text}; shapes agree with config.json")


def _skip_class(config: ModelConfig, layers: Sequence[LayerSummary]) -> Finding:
    reachable = [index for index, layer in enumerate(layers) if layer.skip_reachable]
    if not reachable:
        return Finding("OK", "no router can choose the skip class: 1 + its bias is at most the greatest expert bias")
    listed = ", ".join(map(str, reachable[:8])) + (", ..." if len(reachable) > 8 else "")
    text = f"routers that can choose the skip class: {len(reachable)} ({listed}); its output is {config.skip_output!r}"
    advice = "set skip_output in config.json to what it was trained with: zero (transformers) or identity (Zyphra)"
    return Finding("WARN", text, advice)


_RELEASED: dict[str, tuple[Range, tuple[str, ...]]] = {  # ranges in ZAYA1-8B, and of which weights
    "input scales": ((0.65, 3.03), ("params/input_scale",)),
    "temperatures": ((0.8, 12.9), ("params/layers/attention/temperature",)),
    "final norm": ((0.036, 5.0), ("params/final_norm",)),
    "output scales of attention": ((-3.8, 3.8), ("params/layers/attention/output_scale",)),
    "output scales of experts": ((-13.2, 13.2), ("params/layers/experts/output_scale",)),
    "residual biases": (
        (-1.15, 1.15),
        (
            "params/input_bias",
            "params/layers/attention/output_bias",
            "params/layers/attention/stream_bias",
            "params/layers/experts/output_bias",
            "params/layers/experts/stream_bias",
        ),
    ),
}


def _values(checkpoint: Checkpoint) -> Iterator[Finding]:
    strange = [text for name in _RELEASED if (text := _strange(checkpoint, name))]
    if not np.isfinite(checkpoint.balancing_biases()).all():
        strange.append("balancing biases that are not finite")
    if not strange:
        yield Finding("OK", f"{', '.join(_RELEASED)}: much as in ZAYA1-8B")
    for text in strange:
        advice = "loading refuses this checkpoint" if "not finite" in text else "compare with the model it comes from"
        yield Finding("WARN", text, advice)


def _strange(checkpoint: Checkpoint, name: str) -> str | None:
    """Says what of some weights is out of the released range."""
    released, paths = _RELEASED[name]
    low, high = _range(_vectors(checkpoint, paths))
    # Half as far again: other sizes and stages of training are not the 8B.
    least, greatest = released[0] * (0.5 if released[0] > 0 else 1.5), released[1] * 1.5
    if not np.isfinite([low, high]).all():
        return f"{name} that are not finite"
    if least <= low and high <= greatest:
        return None
    return f"{name} of {low:.3g} to {high:.3g}; ZAYA1-8B has {released[0]:g} to {released[1]:g}"


def _vectors(checkpoint: Checkpoint, paths: Iterable[str]) -> Iterator[np.ndarray]:
    for path in paths:
        for layer in range(checkpoint.config.num_layers if "/layers/" in path else 1):
            yield checkpoint.read(path, layer)


def _alignment(checkpoint: Checkpoint) -> Finding:
    infos = checkpoint.tensors.values()
    total, aligned = sum(info.nbytes for info in infos), sum(info.nbytes for info in infos if info.start % LINE == 0)
    text = f"{100 * aligned / total:.1f} % of the data lies on {LINE}-byte boundaries"
    if total - aligned < max(2**20, total // 1000):  # vectors of odd sizes, which cost nothing to copy
        return Finding("OK", f"{text}: a CPU uses it in place, without a copy, if it computes in the stored dtype")
    advice = "on a CPU loading copies it; experiments.convert writes a copy that is used in place"
    return Finding("WARN", text, advice)


def _special_tokens(info: CheckpointInfo) -> Iterator[Finding]:
    tokens, size = info.special_tokens, info.config.vocab_size
    given = {"bos": (tokens.bos,), "eos": tokens.eos, "pad": (tokens.pad,)}
    outside = [f"{name} {index}" for name, ids in given.items() for index in ids if index is not None and index >= size]
    if outside:
        yield Finding("WARN", f"{', '.join(outside)}: no row of the embedding ({size:,})", "correct config.json")
    elif not tokens.eos:
        yield Finding("WARN", "no eos token", "set eos_token_id in config.json, or answers end at their budget only")
    else:
        yield Finding("OK", "special tokens are rows of the embedding")


def _text_files(checkpoint: Checkpoint) -> Iterator[Finding]:
    directory = checkpoint.directory
    if not (directory / "tokenizer.json").is_file():
        advice = "copy it from the model's repository; without it only token ids can be given"
        yield Finding("WARN", "no tokenizer.json", advice)
        return
    if _has_template(checkpoint):
        yield Finding("OK", "tokenizer and chat template are there")
    else:
        advice = "copy it from the model's repository; without it texts are continued, messages refused"
        yield Finding("WARN", "a tokenizer but no chat_template.jinja", advice)


def _has_template(checkpoint: Checkpoint) -> bool:
    directory = checkpoint.directory
    if (directory / "chat_template.jinja").is_file() or any(directory.glob("chat_templates/*.jinja")):
        return True
    settings = directory / "tokenizer_config.json"
    return settings.is_file() and bool(read_json(settings).get("chat_template"))


def _range(arrays: Iterable[np.ndarray]) -> Range:
    """The least and the greatest of all values; NaN if one is."""
    ends = np.array([(a.min(), a.max()) for a in (np.asarray(a, np.float32) for a in arrays)])
    return float(ends[:, 0].min()), float(ends[:, 1].max())
