"""Training adapters: which leaves are trained, which are only read, and what the loss and an export see of both."""

from __future__ import annotations

from typing import Any

import jax
import optax

from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.lora import LoraConfig, adapt, build_lora, init_lora, merge
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.zero import memory_sharding, split_memories


def trained_and_frozen(
    model: ModelConfig, lora: LoraConfig | None, params: Any, key: jax.Array, dtype: str = "float32"
) -> tuple[Any, Any]:
    """What the optimizer holds, and what stands still beside it.

    Args:
        model: the architecture.
        lora: None trains the parameters themselves.
        params: stacked, of any type: those of a checkpoint. A frozen base may stay in bfloat16.
        key: for fresh adapters.
        dtype: of the adapters: the exact type.

    Returns:
        (adapters, params), or (params, None) without adapters.

    Raises:
        UserError: a target that the model does not have.
    """
    if lora is None:
        return params, None
    return init_lora(model, lora, key, dtype), params


def loss_params(lora: LoraConfig | None, trained: Any, frozen: Any) -> Any:
    """What the model reads: a function of `trained` alone as far as gradients go."""
    return trained if lora is None else adapt(frozen, trained, lora)


def export_params(model: ModelConfig, lora: LoraConfig | None, trained: Any, frozen: Any) -> Any:
    """Plain stacked parameters for a checkpoint of the hub's format: adapters are merged, in their own type.

    That is the exact one; a base that stands still may be of a narrower one, in which small updates would be lost.
    """
    if lora is None:
        return trained
    dtype = jax.tree.leaves(trained)[0].dtype
    return merge(model, jax.tree.map(lambda x: x.astype(dtype), frozen), trained, lora)


def adapter_optimizer(
    config: OptimizerConfig, model: ModelConfig, lora: LoraConfig, mesh: jax.sharding.Mesh | None = None
) -> optax.GradientTransformation:
    """Clipping and AdamW over a tree of adapters, for a learning rate of 1. Its memory is of the adapters' size.

    Both matrices of a pair decay: towards the base, not towards a model without weights.

    Args:
        config: `weight_decay`, `clip` and AdamW's own.
        model, lora: what the adapters are of.
        mesh: the devices that they lie on by `adapter_shardings`; None is one device.

    Raises:
        UserError: another optimizer than AdamW is asked for.
    """
    if config.name != "adamw":
        fix = "set it to adamw"
        raise mistake("adapters are trained by AdamW", where="OptimizerConfig.name", found=repr(config.name), fix=fix)
    direction = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.epsilon)
    if mesh is not None:
        memory = adapter_memory_shardings(config, model, lora, mesh)
        direction = split_memories(direction, memory, adapter_shardings(model, lora, mesh))
    decay = optax.add_decayed_weights(config.weight_decay)
    return optax.chain(optax.clip_by_global_norm(config.clip), direction, decay, optax.scale(-1.0))


def adapter_shardings(model: ModelConfig, lora: LoraConfig, mesh: jax.sharding.Mesh) -> Any:
    """Where each adapter lies: its axes are the weight's, the rank's is whole."""
    return build_lora(model, lora, slot_sharding(mesh))


def adapter_memory_shardings(
    config: OptimizerConfig, model: ModelConfig, lora: LoraConfig, mesh: jax.sharding.Mesh
) -> Any:
    """Where what is remembered of each adapter lies: split further under ZeRO-1 (`zero.memory_spec`)."""
    return build_lora(model, lora, memory_sharding(mesh, muon=False) if config.zero1 else slot_sharding(mesh))
