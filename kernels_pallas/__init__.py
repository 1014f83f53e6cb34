"""The three operations that ZAYA lives on. Imports jax and nothing of zaya_jax; usable on its own.

Shape letters: B batch, T query positions, S key positions, N query heads, K key-value heads, H head width,
U convolution channels (N + K) * H, M rows, E experts (groups).
"""
