"""`config.json` read, in both schemas: what the tensors' shapes do not tell is taken, the rest is checked.

Sizes are read off the tensors (`names.Dimensions`); the file must agree with them wherever it speaks. From the file
come the kinds of layers, the windows, the rotary bases, the epsilon, the context length and the special tokens.

- native: `ZayaConfig` of transformers 5.23, one entry a layer.
- legacy: half-layers, scalars (ZAYA1-8B-legacy) or a list with one value a half-layer (ZAYA1-base); Zyphra's internal
  spellings `smoe_*`, `rotary_base`, `rope_pct`. Lists may be longer than needed. Where there are lists, the scalars
  `num_hidden_layers` (120 for 80 half-layers), `num_attention_heads` (uncompressed) and `ffn_hidden_size` say nothing.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from zaya_jax.checkpoint.files import read_json
from zaya_jax.checkpoint.names import Dimensions, FileLayout
from zaya_jax.errors import UserError, mistake
from zaya_jax.model.config import LayerType, ModelConfig, Rope

Raw = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """The special token ids of a `config.json`, as they are there. The defaults are those of ZAYA1-8B."""

    bos: int | None = 2
    eos: tuple[int, ...] = (106,)
    pad: int | None = 0


def read_config(file: pathlib.Path, found: Dimensions, layout: FileLayout) -> tuple[ModelConfig, SpecialTokens]:
    """Reads a `config.json` that belongs to tensors of the dimensions `found` in a layout.

    Raises:
        UserError: the file is missing or malformed, describes a model that is not supported, or disagrees with the
            tensors; the message names the file, the key, what was expected and what was found.
    """
    raw = read_json(file)
    refuse_kind(raw, file)
    return parse_config(raw, found, layout, file)


def parse_config(raw: Raw, found: Dimensions, layout: FileLayout, where: object) -> tuple[ModelConfig, SpecialTokens]:
    """`read_config` of a dictionary; `where` is named in errors."""
    raw = _respell(raw, where)
    _check_fixed(raw, where)
    read = _native if schema(raw, layout) == "native" else _legacy
    fields = read(raw, found, where)
    if raw.get("skip_output") is not None:
        fields["skip_output"] = raw["skip_output"]
    sizes = dataclasses.asdict(found)
    del sizes["num_layers"]
    try:
        return ModelConfig(**sizes, **fields), _special_tokens(raw, where)
    except UserError as error:
        raise UserError(f"{where}, {error}") from None


def schema(raw: Raw, layout: FileLayout) -> FileLayout:
    """Which of the two schemas a config is written in; where its keys do not tell, the layout of the tensors does."""
    native = any(key in raw for key in _NATIVE_KEYS)
    legacy = any(key in raw for key in _LEGACY_KEYS)
    return layout if native == legacy else "native" if native else "legacy"


def refuse_kind(raw: Raw, where: object) -> None:
    """Refuses, by name, models that are not supported.

    Raises:
        UserError: a vision, diffusion or quantized ZAYA1, or no ZAYA at all.
    """
    architectures = raw.get("architectures")
    names = [raw.get("model_type"), *(architectures if isinstance(architectures, list) else [])]
    kind = " ".join(str(name) for name in names if name).lower()
    wanted = {"expected": "zaya", "found": names[0] if names else None, "fix": _TEXT}
    if "vl" in kind or "vision_config" in raw or "image_token_id" in raw:
        raise _wrong("ZAYA1-VL checkpoints are not supported", where, "model_type", **wanted)
    if "diffusion" in kind or "tidar" in kind:
        raise _wrong("diffusion models are not supported", where, "model_type", **wanted)
    if raw.get("quantization_config"):
        method = raw["quantization_config"]
        method = method.get("quant_method", "unnamed") if isinstance(method, dict) else method
        fix = "use the bfloat16 checkpoint it was made from, e.g. Zyphra/ZAYA1-8B"
        what = "quantized checkpoints are not supported"
        raise _wrong(what, where, "quantization_config", expected="none", found=method, fix=fix)
    if kind and not any(name in kind for name in ("zaya", "smoe", "bmoe")):
        raise _wrong("not a ZAYA1 model", where, "model_type", **wanted)


_TEXT = "zaya_jax reads text models: ZAYA1-8B, ZAYA1-74B-preview, ZAYA1-base and ZAYA1-reasoning-base"
_NATIVE_KEYS = ("layer_types", "moe_intermediate_size", "router_hidden_size")
_LEGACY_KEYS = ("cca", "ffn_hidden_size", "ffn_hidden_size_list", "zaya_layers", "moe_router_topk")
_LARGEST = sys.float_info.max  # JSON has larger integers, and infinity
_SPELLINGS = {"rotary_base": "rope_theta", "rope_pct": "partial_rotary_factor"}

_FIXED = {  # keys with one value that this model can be: anything else changes the function
    "attention_bias": (False,),
    "add_bias_linear": (False,),
    "lm_head_bias": (False,),
    "tie_word_embeddings": (True,),
    "num_experts_per_tok": (1,),
    "moe_router_topk": (1,),
    "hidden_act": ("silu", "swiglu"),
    "activation_func": ("swiglu", "silu"),
    "gated_linear_unit": (True,),
    "normalization": ("RMSNorm",),
    "cca": (True,),
    "cca_time0": (2,),
    "cca_time1": (2,),
    "clamp_temp": (False,),
    "scale_residual_merge": (True,),
    "zaya_use_eda": (True,),
    "zaya_use_mod": (True,),
}


def _respell(raw: Raw, where: object) -> dict[str, Any]:
    """Replaces internal spellings by the public ones."""
    result: dict[str, Any] = {}
    for key, value in raw.items():
        ours = _SPELLINGS.get(key, f"zaya_{key[5:]}" if key.startswith("smoe_") else key)
        if ours != key and ours in raw and raw[ours] != value:
            raise mistake("two spellings disagree", where=f"{where}, keys {ours} and {key}", found=[raw[ours], value])
        result[ours] = value
    return result


def _check_fixed(raw: Raw, where: object) -> None:
    for key, allowed in _FIXED.items():
        value = raw.get(key)
        if value is not None and not any(type(value) is type(a) and value == a for a in allowed):
            expected = " or ".join(map(repr, allowed))
            fix = "this variant of the architecture is not supported"
            raise _wrong("unsupported value", where, key, expected=expected, found=_short(value), fix=fix)
    scaling = raw.get("rope_scaling")
    if scaling not in (None, False):
        _check_rope_type(scaling, "rope_scaling", where)


def _native(raw: Raw, found: Dimensions, where: object) -> dict[str, Any]:
    """The fields of `ModelConfig` that a native config decides."""
    sizes = {
        "num_hidden_layers": found.num_layers,
        "vocab_size": found.vocab_size,
        "hidden_size": found.hidden_size,
        "num_attention_heads": found.num_query_heads,
        "num_key_value_heads": found.num_kv_heads,
        "head_dim": found.head_dim,
        "num_experts": found.num_experts,
        "moe_intermediate_size": found.expert_hidden_size,
        "router_hidden_size": found.router_hidden_size,
    }
    for key, size in sizes.items():
        if raw.get(key) is not None:
            _agree(key, raw[key], size, where)
    layer_types = _native_layer_types(raw, found, where)
    full, sliding = _native_ropes(raw, "sliding" in layer_types, where)
    return {
        "layer_types": layer_types,
        "sliding_window": raw.get("sliding_window") if "sliding" in layer_types else None,
        "full_rope": full,
        "sliding_rope": sliding,
        "norm_epsilon": _number(raw, "rms_norm_eps", where, 1e-5),
        "max_position_embeddings": raw.get("max_position_embeddings", 131072),
    }


def _native_layer_types(raw: Raw, found: Dimensions, where: object) -> tuple[LayerType, ...]:
    kinds: dict[str, LayerType] = {"hybrid": "full", "hybrid_sliding": "sliding"}
    types = ["hybrid"] * found.num_layers if raw.get("layer_types") is None else raw["layer_types"]
    key = "layer_types"
    if not isinstance(types, list) or len(types) != found.num_layers:
        count = len(types) if isinstance(types, list) else _short(types)
        raise _wrong("disagrees with the tensors", where, key, expected=f"{found.num_layers} entries", found=count)
    unknown = [kind for kind in types if not isinstance(kind, str) or kind not in kinds]
    if unknown:
        raise _wrong("unknown kind of layer", where, key, expected=" or ".join(kinds), found=_short(unknown[0]))
    return tuple(kinds[kind] for kind in types)


def _native_ropes(raw: Raw, has_sliding: bool, where: object) -> tuple[Rope, Rope]:
    """Reads `rope_parameters`: nested by kind of layer (with or without the Hub's stray `rope_type`), flat, or none."""
    rope = raw.get("rope_parameters")
    if rope is None and "rope_theta" not in raw:
        return Rope(5e6), Rope(1e4)
    rope = {} if rope is None else rope
    _check_rope_type(rope, "rope_parameters", where)
    nested = {kind: rope[kind] for kind in ("hybrid", "hybrid_sliding") if rope.get(kind) is not None}
    if has_sliding and "hybrid_sliding" not in nested:
        what = "rotary base of the sliding layers is missing"
        raise _wrong(what, where, "rope_parameters", expected="hybrid_sliding: {...}")
    if "hybrid" not in nested:
        flat = {key: raw[key] for key in ("rope_theta", "partial_rotary_factor") if key in raw} | dict(rope)
        full = _rope(flat, "rope_parameters", where, None)
    else:
        full = _rope(nested["hybrid"], "rope_parameters.hybrid", where, 1.0)
    if "hybrid_sliding" not in nested:
        return full, Rope(1e4)
    return full, _rope(nested["hybrid_sliding"], "rope_parameters.hybrid_sliding", where, 1.0)


def _rope(entry: Any, key: str, where: object, fraction: float | None) -> Rope:
    _check_rope_type(entry, key, where)
    theta = _number(entry, "rope_theta", f"{where}, key {key}")
    return Rope(theta, _number(entry, "partial_rotary_factor", f"{where}, key {key}", fraction))


def _check_rope_type(entry: Any, key: str, where: object) -> None:
    if not isinstance(entry, Mapping):
        raise _wrong("malformed rotary embedding", where, key, expected="{...}", found=_short(entry))
    kind = entry.get("rope_type", entry.get("type", "default"))
    if kind not in ("default", None):
        fix = "scaled rotary embeddings are not supported"
        raise _wrong("unsupported rope_type", where, key, expected="default", found=_short(kind), fix=fix)


def _legacy(raw: Raw, found: Dimensions, where: object) -> dict[str, Any]:
    """The fields of `ModelConfig` that a legacy config decides."""
    _check_legacy_sizes(raw, found, where)
    windows = _half_layers(raw["swa_layers"], "swa_layers", 0, found, where) if raw.get("swa_layers") else []
    if not windows and raw.get("sliding_window"):
        fix = "say which layers have a window"
        found_window = _short(raw["sliding_window"])
        raise _wrong("without swa_layers", where, "sliding_window", expected="null", found=found_window, fix=fix)
    layer_types, window = _legacy_windows(windows, found, where)
    fraction = _number(raw, "partial_rotary_factor", where)
    return {
        "layer_types": layer_types,
        "sliding_window": window,
        "full_rope": Rope(_number(raw, "rope_theta", where), fraction),
        "sliding_rope": Rope(_number(raw, "swa_rotary_base", where, 1e4), fraction),
        "norm_epsilon": _number(raw, "norm_epsilon", where, 1e-5),
        "max_position_embeddings": _required(raw, "max_position_embeddings", where),
    }


def _check_legacy_sizes(raw: Raw, found: Dimensions, where: object) -> None:
    attention, experts = 0, 1  # which half-layers of a list speak about it
    sizes = {
        "vocab_size": (found.vocab_size, attention),
        "hidden_size": (found.hidden_size, attention),
        "num_hidden_layers": (2 * found.num_layers, attention),
        "num_attention_heads": (found.num_query_heads, attention),
        "cca_num_q_heads": (found.num_query_heads, attention),
        "num_key_value_heads": (found.num_kv_heads, attention),
        "num_query_groups": (found.num_kv_heads, attention),
        "num_query_groups_list": (found.num_kv_heads, attention),
        "head_dim": (found.head_dim, attention),
        "kv_channels": (found.head_dim, attention),
        "num_experts": (found.num_experts, experts),
        "zaya_layers": (found.num_experts, experts),
        "ffn_hidden_size": (2 * found.expert_hidden_size, experts),
        "ffn_hidden_size_list": (2 * found.expert_hidden_size, experts),
        "zaya_mlp_expansion": (found.router_hidden_size, experts),
    }
    lists = any(isinstance(raw.get(key), list) for key in sizes)
    silent = {"num_hidden_layers", "num_attention_heads", "ffn_hidden_size"} if lists else set()
    if raw.get("cca_num_q_heads") is not None:
        silent.add("num_attention_heads")
    for key, (size, half) in sizes.items():
        value = raw.get(key)
        if isinstance(value, list):
            for entry in _half_layers(value, key, half, found, where):
                _agree(key, entry, size, where)
        elif value is not None and key not in silent:
            _agree(key, value, size, where)


def _half_layers(value: Any, key: str, half: int, found: Dimensions, where: object) -> list:
    """The entries of a list that belong to attention (half 0) or to the experts (half 1), without its surplus."""
    count = 2 * found.num_layers
    if not isinstance(value, list) or len(value) < count:
        entries = len(value) if isinstance(value, list) else _short(value)
        expected = f"a list of at least {count} half-layers, as many as there are tensors for"
        raise _wrong("disagrees with the tensors", where, key, expected=expected, found=entries)
    return value[half:count:2]


def _legacy_windows(windows: list, found: Dimensions, where: object) -> tuple[tuple[LayerType, ...], int | None]:
    """Kinds of layers and the window, which in a legacy config does not count the current token."""
    key = "swa_layers"
    strange = [value for value in windows if type(value) is not int or value < 0]
    if strange:
        raise _wrong("not a window", where, key, expected="a number of tokens, or 0", found=_short(strange[0]))
    sizes = sorted({value for value in windows if value})
    if len(sizes) > 1:
        raise _wrong("windows of several sizes", where, key, expected="one", found=sizes[:4])
    layer_types = tuple("sliding" if value else "full" for value in windows or [0] * found.num_layers)
    return layer_types, sizes[0] + 1 if sizes else None


def _agree(key: str, value: Any, size: int, where: object) -> None:
    if type(value) is not int or value != size:
        fix = "config.json and the weights are not of one model"
        expected = f"{size} as in the tensors"
        raise _wrong("disagrees with the tensors", where, key, expected=expected, found=_short(value), fix=fix)


def _special_tokens(raw: Raw, where: object) -> SpecialTokens:
    default = SpecialTokens()
    bos, pad = raw.get("bos_token_id", default.bos), raw.get("pad_token_id", default.pad)
    eos = raw.get("eos_token_id", list(default.eos))
    eos = tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,)
    for key, ids in {"bos_token_id": (bos,), "pad_token_id": (pad,), "eos_token_id": eos}.items():
        wrong = [n for n in ids if n is not None and (type(n) is not int or n < -1)]
        if wrong or (key == "eos_token_id" and None in ids):
            raise _wrong("not a token id", where, key, expected="an integer", found=_short(ids))
    return SpecialTokens(bos, eos, pad)


def _wrong(what: str, where: object, key: str, **parts: Any) -> UserError:
    return mistake(what, where=f"{where}, key {key}", **parts)


def _number(raw: Raw, key: str, where: object, default: float | None = None) -> float:
    value = raw.get(key)
    if value is None and default is not None:
        return default
    value = _required(raw, key, where)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise _wrong("not a number", where, key, expected="a number", found=_short(value))
    return float(value)


def _required(raw: Raw, key: str, where: object) -> Any:
    if raw.get(key) is None:
        raise _wrong("key is missing", where, key, expected="a value", fix="get config.json anew")
    return raw[key]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
