"""Top-1 SwiGLU experts, dropless and exact."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels_pallas.grouped_matmul import grouped_matmul, grouped_swiglu, sort_by_expert, take_sorted, unsort
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.execution import Execution
from zaya_jax.model.experts_unstacked import expert_mlp


def apply_experts(
    config: ModelConfig,
    execution: Execution,
    w: dict[str, jax.Array],
    x_BTD: jax.Array,
    routes_BT: jax.Array,
    gate_BT: jax.Array,
) -> jax.Array:
    """gate * down(silu(gate half) * up half) of each token's expert, exact type.

    A token of the skip class gives zero, or gate * x if `config.skip_output` says so; padding (-1) gives zero.
    """
    x_PD, routes_P = x_BTD.reshape(-1, x_BTD.shape[-1]), routes_BT.reshape(-1)
    gate_P1 = gate_BT.reshape(-1, 1)
    order = sort_by_expert(routes_P, config.num_experts)
    rows = take_sorted(x_PD.astype(execution.compute_dtype), order)
    arguments = (execution, rows, w["gate_up"], w["down"], order.group_sizes_E)
    if isinstance(w["gate_up"], tuple):
        y_PD = unsort(expert_mlp(*arguments), order) * gate_P1
    else:
        y_PD = unsort(_stacked_mlp(*arguments, take_sorted(gate_P1, order)[:, 0]), order)
    if config.skip_output == "identity":
        skipped = (routes_P == config.num_experts)[:, None]
        y_PD = jnp.where(skipped, gate_P1 * x_PD.astype(y_PD.dtype), y_PD)
    return y_PD.reshape(x_BTD.shape)


def _stacked_mlp(execution: Execution, x_MD, gate_up_EXD, down_EDF, group_sizes_E, gate_M):
    """The experts' MLP as two grouped products, times each row's gate, exact type."""
    hidden_MF = grouped_swiglu(x_MD, gate_up_EXD, group_sizes_E, implementation=execution.experts)
    return grouped_matmul(
        hidden_MF,
        down_EDF,
        group_sizes_E,
        gate_M,
        preferred_element_type=execution.exact_dtype,
        implementation=execution.experts,
    )
