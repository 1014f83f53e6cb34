"""Top-1 SwiGLU experts, dropless and exact."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels_pallas.grouped_matmul import grouped_matmul, grouped_swiglu, sort_by_expert, take_sorted, unsort
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.execution import Execution
from zaya_jax.model.experts_unstacked import expert_mlp
from zaya_jax.model.lora import Adapted, merged, product
from zaya_jax.parallel import each_device


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
    On a mesh each device sorts and computes its own rows.
    """

    def local(rows, matrices):
        return _apply(config, execution, *matrices, *rows)

    return each_device(execution.mesh, local, (x_BTD, routes_BT, gate_BT), (w["gate_up"], w["down"]))


def _apply(config: ModelConfig, execution: Execution, gate_up, down, x_BTD, routes_BT, gate_BT) -> jax.Array:
    """`apply_experts` of one device's rows."""
    x_PD, routes_P = x_BTD.reshape(-1, x_BTD.shape[-1]), routes_BT.reshape(-1)
    gate_P1 = gate_BT.reshape(-1, 1)
    order = sort_by_expert(routes_P, config.num_experts)
    rows = take_sorted(x_PD.astype(execution.compute_dtype), order)
    if isinstance(gate_up, tuple):  # no product of their own for adapters
        gate_up, down = tuple(map(merged, gate_up)), tuple(map(merged, down))
    arguments = (execution, rows, gate_up, down, order.group_sizes_E)
    if isinstance(gate_up, tuple):
        y_PD = unsort(expert_mlp(*arguments), order) * gate_P1
    else:
        y_PD = unsort(_stacked_mlp(*arguments, take_sorted(gate_P1, order)[:, 0]), order)
    if config.skip_output == "identity":
        skipped = (routes_P == config.num_experts)[:, None]
        y_PD = jnp.where(skipped, gate_P1 * x_PD.astype(y_PD.dtype), y_PD)
    return y_PD.reshape(x_BTD.shape)


def _stacked_mlp(execution: Execution, x_MD, gate_up_EXD, down_EDF, group_sizes_E, gate_M):
    """The experts' MLP as two grouped products, times each row's gate, exact type."""
    if isinstance(gate_up_EXD, Adapted) or isinstance(down_EDF, Adapted):
        return _adapted_mlp(execution, x_MD, gate_up_EXD, down_EDF, group_sizes_E) * gate_M[:, None]
    hidden_MF = grouped_swiglu(x_MD, gate_up_EXD, group_sizes_E, implementation=execution.experts)
    return grouped_matmul(
        hidden_MF,
        down_EDF,
        group_sizes_E,
        gate_M,
        preferred_element_type=execution.exact_dtype,
        implementation=execution.experts,
    )


def _adapted_mlp(execution: Execution, x_MD, gate_up_EXD, down_EDF, group_sizes_E):
    """The experts' MLP with adapters, which are grouped products of their own: nothing can be fused with them."""

    def multiply(x_MX, weight_EYX):
        options = {"preferred_element_type": execution.exact_dtype, "implementation": execution.experts}
        return grouped_matmul(x_MX, weight_EYX, group_sizes_E, **options)

    gated, up = jnp.split(product(multiply, x_MD, gate_up_EXD), 2, axis=-1)
    hidden_MF = (jax.nn.silu(gated) * up).astype(execution.compute_dtype)
    return product(multiply, hidden_MF, down_EDF)
