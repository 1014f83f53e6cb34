"""Expert dispatch: rows sorted by expert, one product per expert."""

from kernels_pallas.grouped_matmul.api import grouped_matmul
from kernels_pallas.grouped_matmul.sorting import Order, sort_by_expert, take_sorted, unsort

__all__ = ["Order", "grouped_matmul", "sort_by_expert", "take_sorted", "unsort"]
