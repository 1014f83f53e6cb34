"""ZAYA1's forward pass in numpy, one token and one head at a time: the oracle that needs no torch.

Written from the description of the released checkpoints and of their reference behaviour, not from `zaya_jax`: it reads
weights by their names in the hub's files. One document, no padding, no cache. `dtype` float64 is the truth of the
tests, float32 tells how much of a difference is rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from zaya_jax.model import ModelConfig


class Result(NamedTuple):
    """What a document got.

    Attributes:
        logits_TV: of every token.
        routes_LT: each layer's class of each token.
        scores_LTC: probability + balancing bias of each class, what the choice is made by.
    """

    logits_TV: np.ndarray
    routes_LT: np.ndarray
    scores_LTC: np.ndarray

    @property
    def margins_LT(self) -> np.ndarray:
        """How far the best score is ahead of the second."""
        ordered = np.sort(self.scores_LTC, axis=-1)
        return ordered[..., -1] - ordered[..., -2]


def forward(
    config: ModelConfig, weights: Mapping[str, np.ndarray], tokens_T, routes_LT=None, dtype=np.float64
) -> Result:
    """The whole model on one document; `routes_LT` replaces the router's choices (not its probabilities)."""
    w = {name: value.astype(dtype) for name, value in weights.items()}
    epsilon = config.norm_epsilon
    embedding = w["model.embed_tokens.weight"]
    stream = (embedding[np.asarray(tokens_T)] + w["model.input_hidden_states_bias"]) * w[
        "model.input_hidden_states_scale"
    ]
    state, routes, scores = None, [], []
    for layer, layer_type in enumerate(config.layer_types):
        prefix = f"model.layers.{layer}."
        own = {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}
        x = rms_norm(stream, own["input_layernorm.weight"], epsilon)
        stream = join(own, "post_attention_residual_scale", attend(config, layer_type, own, x), stream)
        x = rms_norm(stream, own["post_attention_layernorm.weight"], epsilon)
        state, probabilities, score = route(own, x, state, epsilon)
        chosen = score.argmax(-1) if routes_LT is None else np.asarray(routes_LT[layer])
        stream = join(own, "post_mlp_residual_scale", experts(config, own, x, chosen, probabilities), stream)
        routes.append(chosen)
        scores.append(score)
    hidden = rms_norm(stream, w["model.norm.weight"], epsilon)
    return Result(hidden @ embedding.T, np.stack(routes), np.stack(scores))


def rms_norm(x, weight, epsilon):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + x.dtype.type(epsilon)) * weight


def join(w, name, output, stream):
    """Residual scaling: bias first, then scale, of both branches."""
    output = (output + w[f"{name}.hidden_states_bias"]) * w[f"{name}.hidden_states_scale"]
    return output + (stream + w[f"{name}.residual_bias"]) * w[f"{name}.residual_scale"]


def attend(config, layer_type, w, x_TD):
    """Compressed convolutional attention."""
    T, N, K, H = len(x_TD), config.num_query_heads, config.num_kv_heads, config.head_dim
    q0 = x_TD @ w["self_attn.qkv_proj.q_proj.weight"].T
    k0 = x_TD @ w["self_attn.qkv_proj.k_proj.weight"].T
    mixed = convolve(w, np.concatenate([q0, k0], axis=1), H).reshape(T, N + K, H)
    q0, k0 = q0.reshape(T, N, H), k0.reshape(T, K, H)
    v = values(w, x_TD).reshape(T, K, H)

    group, rope, window = N // K, config.rope(layer_type), config.window(layer_type)
    q, k = np.zeros_like(q0), np.zeros_like(k0)
    for t in range(T):
        q_means = [(q0[t, n] + k0[t, n // group]) / 2 for n in range(N)]
        for n in range(N):
            q[t, n] = rotate(normalize(mixed[t, n] + q_means[n]), t, rope)
        for j in range(K):
            k_mean = sum(q_means[j * group : (j + 1) * group]) / group
            temperature = w["self_attn.qk_norm.temp"][j]
            k[t, j] = rotate(normalize(mixed[t, N + j] + k_mean) * temperature, t, rope)

    out = np.zeros_like(q)
    for t in range(T):
        first = 0 if window is None else max(0, t - window + 1)
        for n in range(N):
            keys, seen = k[first : t + 1, n // group], v[first : t + 1, n // group]
            out[t, n] = softmax(keys @ q[t, n] / math.sqrt(H)) @ seen
    return out.reshape(T, N * H) @ w["self_attn.o_proj.weight"].T


def convolve(w, u_TU, head_dim):
    """Two causal convolutions of width two; before the document lie zeros, which the first one turns into its bias."""
    T, U = u_TU.shape
    taps, bias = w["self_attn.qkv_proj.conv_qk_depthwise.weight"], w["self_attn.qkv_proj.conv_qk_depthwise.bias"]
    u = np.concatenate([np.zeros((2, U), u_TU.dtype), u_TU])
    d = np.stack([taps[:, 0, 0] * u[i] + taps[:, 0, 1] * u[i + 1] + bias for i in range(T + 1)])
    weight, bias = w["self_attn.qkv_proj.conv_qk_grouped.weight"], w["self_attn.qkv_proj.conv_qk_grouped.bias"]
    y = np.zeros_like(u_TU)
    for t in range(T):
        for start in range(0, U, head_dim):
            own = slice(start, start + head_dim)
            y[t, own] = weight[own, :, 0] @ d[t, own] + weight[own, :, 1] @ d[t + 1, own] + bias[own]
    return y


def values(w, x_TD):
    """The first half of all value channels is of this token, the second of the previous one."""
    current = x_TD @ w["self_attn.qkv_proj.v_proj_current.weight"].T
    delayed = x_TD @ w["self_attn.qkv_proj.v_proj_delayed.weight"].T
    delayed = np.concatenate([np.zeros_like(delayed[:1]), delayed[:-1]])
    return np.concatenate([current, delayed], axis=1)


def normalize(x_H):
    """To length sqrt(H)."""
    return x_H * (math.sqrt(len(x_H)) / np.sqrt((x_H * x_H).sum()))


def rotate(x_H, position, rope):
    """Turns the pairs (i, i + R / 2) of the first R channels by position * theta^(-2i / R)."""
    R = int(len(x_H) * rope.fraction)
    y = x_H.copy()
    for i in range(R // 2):
        angle = x_H.dtype.type(position) * x_H.dtype.type(rope.theta ** (-2 * i / R))
        cos, sin = np.cos(angle), np.sin(angle)
        a, b = x_H[i], x_H[i + R // 2]
        y[i], y[i + R // 2] = a * cos - b * sin, b * cos + a * sin
    return y


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gelu(x):
    erf = np.vectorize(math.erf, otypes=[np.float64])(x / x.dtype.type(math.sqrt(2)))
    return x / 2 * (1 + erf.astype(x.dtype))


def route(w, x_TD, below_TR, epsilon):
    """The router's state (before its norm: the next layer adds it), its probabilities, and what it chooses by."""
    state = x_TD @ w["mlp.gate.down_proj.weight"].T + w["mlp.gate.down_proj.bias"]
    if below_TR is not None:
        state = state + below_TR * w["mlp.gate.router_states_scale"]
    h = rms_norm(state, w["mlp.gate.router_mlp.norm.weight"], epsilon)
    for name in ("fc1", "fc2"):
        h = gelu(h @ w[f"mlp.gate.router_mlp.{name}.weight"].T + w[f"mlp.gate.router_mlp.{name}.bias"])
    probabilities = softmax(h @ w["mlp.gate.router_mlp.out_proj.weight"].T)
    return state, probabilities, probabilities + w["mlp.gate.balancing_biases"]


def experts(config, w, x_TD, chosen_T, probabilities_TC):
    """The chosen expert's output times its probability; the class behind the last expert skips."""
    out = np.zeros_like(x_TD)
    for t, expert in enumerate(chosen_T):
        if expert < config.num_experts:
            gate, up = np.split(w["mlp.experts.gate_up_proj"][expert] @ x_TD[t], 2)
            y = w["mlp.experts.down_proj"][expert] @ (gate / (1 + np.exp(-gate)) * up)
        else:
            y = x_TD[t] if config.skip_output == "identity" else np.zeros_like(x_TD[t])
        out[t] = probabilities_TC[t, expert] * y
    return out
