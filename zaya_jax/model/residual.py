"""Residual scaling: how a sub-block's output joins the stream (report, eq. 6)."""

from __future__ import annotations

import jax


def join(output_BTD: jax.Array, stream_BTD: jax.Array, w: dict[str, jax.Array]) -> jax.Array:
    """(output + bias) * scale + (stream + bias) * scale, in the stream's exact type.

    The released weights are affine in this order, bias before scale; the report writes the other one.
    """
    dtype = stream_BTD.dtype
    output = (output_BTD.astype(dtype) + w["output_bias"].astype(dtype)) * w["output_scale"].astype(dtype)
    return output + (stream_BTD + w["stream_bias"].astype(dtype)) * w["stream_scale"].astype(dtype)
