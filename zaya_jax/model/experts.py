"""Top-1 SwiGLU experts, dropless and exact."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from kernels_pallas.grouped_matmul import grouped_matmul, grouped_swiglu, sort_by_expert, take_sorted, unsort
from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.execution import Execution
from zaya_jax.model.experts_unstacked import expert_mlp
from zaya_jax.model.lora import Adapted, merged, product
from zaya_jax.parallel import Kind, best_kind, each_device, exchange


def apply_experts(
    config: ModelConfig,
    execution: Execution,
    w: dict[str, jax.Array],
    x_BTD: jax.Array,
    routes_BT: jax.Array,
    gate_BT: jax.Array,
    columns: bool = False,
) -> jax.Array:
    """gate * down(silu(gate half) * up half) of each token's expert, exact type.

    A token of the skip class gives zero, or gate * x if `config.skip_output` says so; padding (-1) gives zero.
    On a mesh each device sorts its own rows (its own columns of them, if `columns`) and computes them, or has them
    computed by the owners of their experts (`Execution.dispatch`). What no expert computes stays where it is.

    Raises:
        UserError: the experts do not divide evenly among their owners.
    """
    kind = _dispatch(config, execution)
    owned = PartitionSpec() if kind == "gather" else PartitionSpec("expert")

    def local(rows, matrices):
        return _apply(config, execution, kind, *matrices, *rows)

    rows, matrices = (x_BTD, routes_BT, gate_BT), (w["gate_up"], w["down"])
    return each_device(execution.mesh, local, rows, matrices, columns=columns, weights_spec=owned)


def _dispatch(config: ModelConfig, execution: Execution) -> str:
    """How tokens and experts come together: `execution.dispatch`, chosen where it is "auto"."""
    owners = 1 if execution.mesh is None else execution.mesh.shape["expert"]
    if owners == 1 or execution.dispatch == "gather" or execution.layout == "unstacked":
        return "gather"
    if config.num_experts % owners:
        expected, fix = f"a divisor of {config.num_experts} experts", 'or Execution(dispatch="gather")'
        raise mistake(
            "experts do not divide evenly", where="mesh axis expert", expected=expected, found=owners, fix=fix
        )
    return best_kind(execution.mesh) if execution.dispatch == "auto" else execution.dispatch


def _apply(config: ModelConfig, execution: Execution, kind: str, gate_up, down, x_BTD, routes_BT, gate_BT) -> jax.Array:
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
    elif kind == "gather":
        y_PD = unsort(_stacked_mlp(*arguments, take_sorted(gate_P1, order)[:, 0]), order)
    else:
        y_PD = unsort(_owners_mlp(*arguments, kind), order) * gate_P1
    if config.skip_output == "identity":
        skipped = (routes_P == config.num_experts)[:, None]
        y_PD = jnp.where(skipped, gate_P1 * x_PD.astype(y_PD.dtype), y_PD)
    return y_PD.reshape(x_BTD.shape)


def _owners_mlp(execution: Execution, x_MD, gate_up_EXD, down_EDF, group_sizes_E, kind: Kind):
    """The MLP, without gates, where each device has some experts' matrices: rows go to their owner and come back."""
    there = exchange(kind, group_sizes_E)
    order = sort_by_expert(there.received(x_MD.shape[0]), down_EDF.shape[0])
    rows_QD = take_sorted(there.send(x_MD), order)
    y_QD = unsort(_stacked_mlp(execution, rows_QD, gate_up_EXD, down_EDF, order.group_sizes_E), order)
    return there.bring_back(y_QD)


def _stacked_mlp(execution: Execution, x_MD, gate_up_EXD, down_EDF, group_sizes_E, gate_M=None):
    """The experts' MLP as two grouped products, times each row's gate if there are any, exact type."""
    if isinstance(gate_up_EXD, Adapted) or isinstance(down_EDF, Adapted):
        y_MD = _adapted_mlp(execution, x_MD, gate_up_EXD, down_EDF, group_sizes_E)
        return y_MD if gate_M is None else y_MD * gate_M[:, None]
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
