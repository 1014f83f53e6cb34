"""MI300X as XLA's compiler for ROCm sees it, with nobody there: the devices that programs are compiled for."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

import jax

from experiments.rocm import stand_ins

MEMORY = 192 * 2**30  # bytes of HBM of one MI300X

# AMD's figures: 304 compute units of 4 SIMDs, 64 KB of LDS each, waves of 64, 5.3 TB/s, 2.1 GHz.
_TARGET = f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 64
  shared_memory_per_block: 65536
  shared_memory_per_block_optin: 65536
  shared_memory_per_core: 65536
  threads_per_core_limit: 2048
  core_count: 304
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65536
  block_dim_limit_z: 65536
  memory_bandwidth: 5300000000000
  l2_cache_size: 4194304
  clock_rate_ghz: 2.1
  device_memory_size: {MEMORY}
  registers_per_core_limit: 131072
  registers_per_block_limit: 131072
  rocm_compute_capability {{ gcn_arch_name: "gfx942:sramecc+:xnack-" }}
}}
platform_name: "ROCM"
dnn_version_info {{ major: 3 minor: 5 }}
device_description_str: "AMD Instinct MI300X"
"""


def mi300x(count: int, nodes: int = 1) -> Sequence[jax.Device]:
    """The MI300Xs of one node, or of several alike; programs are compiled for them, nothing can be put on them."""
    from jax.experimental import topologies

    _load()
    return topologies.get_topology_desc(platform="rocm", target_config=_TARGET, topology=f"{nodes}x1x{count}").devices


@functools.cache
def _load() -> None:
    """Makes the compiler known to jax, whose own attempt to do so ends where it finds no GPU."""
    from jax._src import xla_bridge

    log = logging.getLogger(xla_bridge.__name__)
    before = log.level
    log.setLevel(logging.CRITICAL)
    jax.devices()
    log.setLevel(before)
    jax.config.update("jax_enable_compilation_cache", False)  # the seconds shall be the compiler's, not a file's
    # Below every other platform: it shall compile, and never be the default.
    xla_bridge.register_plugin("rocm", priority=-500, library_path=str(stand_ins.plugin()), options={})
