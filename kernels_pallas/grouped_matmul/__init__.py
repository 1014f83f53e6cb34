"""Expert dispatch: rows sorted by expert, one product per expert."""

from kernels_pallas.grouped_matmul.api import grouped_matmul, grouped_swiglu
from kernels_pallas.grouped_matmul.sorting import Order, sort_by_expert, take_sorted, unsort

__all__ = ["Order", "grouped_matmul", "grouped_swiglu", "sort_by_expert", "take_sorted", "unsort"]
