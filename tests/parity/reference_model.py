"""ZAYA1 as transformers computes it, on the weights of our tests. Needs torch."""

from __future__ import annotations

import contextlib
import types
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from transformers import ZayaConfig, ZayaForCausalLM
from transformers.models.zaya import modeling_zaya

from zaya_jax.model import ModelConfig

_KINDS = {"full": "hybrid", "sliding": "hybrid_sliding"}


class Found(NamedTuple):
    """Logits [B, T, V] in float64 and routes [L, B, T] of a call, with the skip class as the last one."""

    logits: np.ndarray
    routes: np.ndarray


def to_transformers(c: ModelConfig) -> ZayaConfig:
    """The same architecture in transformers' words."""

    def rope(kind):
        return {
            "rope_type": "default",
            "rope_theta": c.rope(kind).theta,
            "partial_rotary_factor": c.rope(kind).fraction,
        }

    return ZayaConfig(
        vocab_size=c.vocab_size,
        hidden_size=c.hidden_size,
        num_hidden_layers=c.num_layers,
        layer_types=[_KINDS[kind] for kind in c.layer_types],
        num_attention_heads=c.num_query_heads,
        num_key_value_heads=c.num_kv_heads,
        head_dim=c.head_dim,
        num_experts=c.num_experts,
        moe_intermediate_size=c.expert_hidden_size,
        router_hidden_size=c.router_hidden_size,
        max_position_embeddings=c.max_position_embeddings,
        rope_parameters={_KINDS[kind]: rope(kind) for kind in _KINDS},
        sliding_window=c.sliding_window,
        rms_norm_eps=c.norm_epsilon,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )


@contextlib.contextmanager
def really_float64():
    """transformers computes norms, rotary angles and the router's choice in float32 whatever the model's type.

    Inside, float32 means float64 to its ZAYA code, so that a model built and run here rounds nowhere.
    """
    double = types.ModuleType("torch")
    double.__dict__.update(torch.__dict__)
    double.float = double.float32 = torch.float64
    with mock.patch.object(modeling_zaya, "torch", double):
        yield


def load(config: ModelConfig, tensors: dict[str, np.ndarray], dtype=torch.float32) -> ZayaForCausalLM:
    """A model with these tensors; for float64, call it and what follows inside of `really_float64`."""
    theirs = to_transformers(config)
    theirs._experts_implementation = "eager"
    model = ZayaForCausalLM(theirs).eval()
    state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    found = model.load_state_dict(state, strict=False)
    assert found.missing_keys in ([], ["lm_head.weight"]) and found.unexpected_keys == [], found
    biases = {name: buffer for name, buffer in model.named_buffers() if "balancing" in name}
    model = model.to(dtype)
    for name, buffer in biases.items():  # exact in every type, as after from_pretrained
        model.get_submodule(name.rpartition(".")[0]).balancing_biases = buffer.to(
            torch.float64 if dtype == torch.float64 else torch.float32
        )
    return model


def run(model: ZayaForCausalLM, batch, routes: np.ndarray | None = None, grad: bool = False) -> Found:
    """One call over a `Batch` of one document a row; `routes` [L, B, T] replaces the choices of the routers."""
    with _routers(model, routes) as taken, torch.set_grad_enabled(grad):
        logits = model(
            torch.from_numpy(batch.tokens.astype(np.int64)),
            attention_mask=torch.from_numpy(batch.real.astype(np.int64)),
            position_ids=torch.from_numpy(np.where(batch.real, batch.positions, 0).astype(np.int64)),
            use_cache=False,
        ).logits
    found = np.stack(taken).reshape(len(taken), *batch.tokens.shape)
    return Found(logits if grad else logits.double().numpy(), found)


@contextlib.contextmanager
def _routers(model, routes):
    """Records each layer's choices, and replaces them where `routes` are given (-1 is a pad: left alone)."""
    taken, hooks = [], []

    def hook(layer):
        def after(router, _, outputs):
            logits, gate, chosen, state = outputs
            skip = router.num_experts
            if routes is not None:
                wanted = torch.from_numpy(routes[layer].astype(np.int64)).reshape(-1, 1)
                live = torch.where(gate == 0, skip, chosen)
                wanted = torch.where(wanted < 0, live, wanted)
                chosen = torch.where(wanted == skip, 0, wanted)
                gate = torch.softmax(logits, -1).gather(1, wanted).masked_fill(wanted == skip, 0)
            taken.append(torch.where(gate == 0, skip, chosen).detach().numpy().ravel())
            return logits, gate, chosen, state

        return after

    for layer, block in enumerate(model.model.layers):
        hooks.append(block.mlp.gate.register_forward_hook(hook(layer)))
    try:
        yield taken
    finally:
        for handle in hooks:
            handle.remove()


def generate(model: ZayaForCausalLM, tokens, real, new_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Greedy continuation of left-padded prompts: tokens [B, new] and the margin of each choice, in logits."""
    out = model.generate(
        torch.from_numpy(tokens.astype(np.int64)),
        attention_mask=torch.from_numpy(real.astype(np.int64)),
        max_new_tokens=new_tokens,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(out.logits, 1).topk(2).values
    return out.sequences[:, tokens.shape[1] :].numpy(), (best[..., 0] - best[..., 1]).numpy()
