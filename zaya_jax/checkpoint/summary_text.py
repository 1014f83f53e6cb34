"""A summary of a checkpoint as text of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from zaya_jax.checkpoint.summary import LayerSummary, Range, Summary, kv_bytes, state_bytes
from zaya_jax.model.config import ModelConfig
from zaya_jax.report.findings import WIDTH

_LABEL = 14  # columns of the names on the left
_SHOWN = 4  # files


def render(summary: Summary) -> str:
    """The whole report: facts, a table of the layers, what was checked."""
    info = summary.info
    facts = {
        "layout": f"{info.layout}; {_dtypes(info.dtypes)}",
        "files": _files(info.files),
        "architecture": _architecture(info.config),
        "parameters": f"{info.num_parameters:,}, of which {summary.num_active:,} are active: one expert of each "
        f"layer, and all else without the embedding ({summary.num_active + _embedding(info.config):,} with it)",
        "cache": _cache(info.config),
        "special ids": _special_ids(summary),
    }
    parts = [str(info.directory), *(_fact(*fact) for fact in facts.items()), "", *_table(summary.layers), ""]
    return "\n".join([*parts, *map(str, summary.findings)])


def _fact(name: str, text: str) -> str:
    indent = {"initial_indent": f"  {name:<{_LABEL}}", "subsequent_indent": " " * (_LABEL + 2)}
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False, **indent)


def _dtypes(dtypes: Mapping[str, int]) -> str:
    common_first = sorted(dtypes.items(), key=lambda item: -item[1])
    return _listed(f"{count:,} tensors {dtype}" for dtype, count in common_first)


def _files(files: Mapping[str, int]) -> str:
    shown = [f"{name} {_size(size)}" for name, size in files.items()]
    if len(shown) == 1:
        return shown[0]
    listed = _listed(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "")
    return f"{len(shown)} with {_size(sum(files.values()))}: {listed}"


def _architecture(c: ModelConfig) -> str:
    return (
        f"{c.num_layers} layers, hidden {c.hidden_size}, {c.num_query_heads} query and {c.num_kv_heads} key-value "
        f"heads of {c.head_dim}, {c.num_experts} experts of {c.expert_hidden_size} (top 1) and a skip class, "
        f"router {c.router_hidden_size}, vocabulary {c.vocab_size:,}, context {c.max_position_embeddings:,}"
    )


def _embedding(c: ModelConfig) -> int:
    return c.vocab_size * c.hidden_size


def _cache(c: ModelConfig) -> str:
    lengths = sorted({min(n, c.max_position_embeddings) for n in (4096, 32768, c.max_position_embeddings)})
    totals = _listed(f"{n:,}: {_size(kv_bytes(c, n))}" for n in lengths)
    window = f", sliding layers keep {c.sliding_window:,}" if "sliding" in c.layer_types else ""
    return (
        f"{kv_bytes(c, 1):,} bytes a token in bfloat16 ({totals}){window}; "
        f"{state_bytes(c):,} bytes a row for convolutions and delayed values"
    )


def _special_ids(summary: Summary) -> str:
    tokens = summary.info.special_tokens
    eos = _listed(map(str, tokens.eos)) or "none"
    return f"bos {_or_none(tokens.bos)}, eos {eos}, pad {_or_none(tokens.pad)}"


def _or_none(value: int | None) -> str:
    return "none" if value is None else str(value)


def _table(layers: Sequence[LayerSummary]) -> Iterator[str]:
    rows = [_HEADINGS, *(_row(index, layer) for index, layer in enumerate(layers))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


_HEADINGS = ("layer", "kind", "window", "rope", "parameters", "temperature", "expert biases", "skip bias", "skip")


def _row(index: int, layer: LayerSummary) -> tuple[str, ...]:
    return (
        str(index),
        layer.kind,
        "all" if layer.window is None else f"{layer.window:,}",
        f"{layer.theta:g}",
        f"{layer.num_parameters:,}",
        _span(layer.temperature, ".2f"),
        _span(layer.expert_bias, "+.4f"),
        f"{layer.skip_bias:g}",
        "reachable" if layer.skip_reachable else "never",
    )


def _span(values: Range, form: str) -> str:
    return f"{values[0]:{form}}..{values[1]:{form}}"


def _size(count: int) -> str:
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.{2 if unit == 'GB' else 1}f} {unit}"
    return f"{count} bytes"


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(parts)
