"""Causal grouped-query attention with windows, segments and caches."""

from kernels_pallas.flash_attention.api import attention

__all__ = ["attention"]
