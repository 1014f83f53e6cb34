"""Chips that a run is planned for, and that a run's share of the peak is taken of: what their makers publish.

Bandwidths of links are those of one direction, summed over a device's links. Nothing here was measured by us, but for
the two cores under "cpu".
"""

from __future__ import annotations

import dataclasses

from zaya_jax.errors import mistake

GB, GIB, TERA = 10**9, 2**30, 10**12


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device.

    Attributes:
        name: as in a flag.
        kind: part of what jax calls its `device_kind`.
        bfloat16, float32: peak of dense matrix products with operands of that type, FLOP/s.
        memory: bytes of HBM.
        bandwidth: of that memory, bytes/s.
        link: to the other devices of its node, bytes/s one way.
        network: to other nodes, a device's share, bytes/s one way.
        node: devices of a usual node.
    """

    name: str
    kind: str
    bfloat16: float
    float32: float
    memory: int
    bandwidth: float
    link: float
    network: float
    node: int = 8

    def peak(self, dtype: str) -> float:
        """Of products with operands of this type, FLOP/s; float64 counts as half of float32."""
        return {"bfloat16": self.bfloat16, "float32": self.float32, "float64": self.float32 / 2}[dtype]


_ALL = (
    # amd.com/en/products/accelerators/instinct/mi300/mi300x.html: 1,307.4 TFLOPS bfloat16 and 163.4 TFLOPS float32
    # (matrix, no sparsity), 192 GB HBM3 (drivers report 192 GiB), 5.3 TB/s, 7 Infinity Fabric links of 128 GB/s both
    # ways together. Network: 8 NICs of 400 Gb/s a node, as in the cluster that trained ZAYA1 (report, Table XIV).
    Chip("mi300x", "MI300X", 1307.4 * TERA, 163.4 * TERA, 192 * GIB, 5.3e12, 7 * 64 * GB, 50 * GB),
    # amd.com/en/products/accelerators/instinct/mi300/mi325x.html: the same chip with 256 GB HBM3E of 6 TB/s.
    Chip("mi325x", "MI325X", 1307.4 * TERA, 163.4 * TERA, 256 * GB, 6.0e12, 7 * 64 * GB, 50 * GB),
    # amd.com/en/products/accelerators/instinct/mi350/mi355x.html: 2.5 PFLOPS bfloat16, 157.3 TFLOPS float32, 288 GB
    # HBM3E, 8 TB/s, 7 links of 153.6 GB/s both ways together.
    Chip("mi355x", "MI355X", 2516.6 * TERA, 157.3 * TERA, 288 * GB, 8.0e12, 7 * 76.8 * GB, 50 * GB),
    # nvidia.com/en-us/data-center/h100 (SXM): 1,979 TFLOPS bfloat16 "with sparsity", half without; TF32 likewise 494.7;
    # 80 GB, 3.35 TB/s, NVLink 900 GB/s both ways. float32 products without TF32: 67 TFLOPS. DGX: 8 NICs of 400 Gb/s.
    Chip("h100", "H100", 989.5 * TERA, 67 * TERA, 80 * GB, 3.35e12, 450 * GB, 50 * GB),
    # nvidia.com/en-us/data-center/h200 (SXM): H100 with 141 GB of 4.8 TB/s.
    Chip("h200", "H200", 989.5 * TERA, 67 * TERA, 141 * GB, 4.8e12, 450 * GB, 50 * GB),
    # nvidia.com/en-us/data-center/dgx-b200, of 8: 36 PFLOPS bfloat16 "with sparsity", 1,440 GB, 64 TB/s, NVLink of
    # 1.8 TB/s both ways each; float32 75 TFLOPS (HGX B200).
    Chip("b200", "B200", 2250 * TERA, 75 * TERA, 180 * GB, 8.0e12, 900 * GB, 50 * GB),
    # The two cores with AVX-512 bfloat16 that this was developed on: products as measured in docs/performance.md, the
    # rest a guess. Its peak says nothing of other CPUs, so that no `device_kind` means it.
    Chip("cpu", "", 0.4 * TERA, 0.15 * TERA, 24 * GIB, 2e10, 5e9, 1e9, node=1),
)
CHIPS = {chip.name: chip for chip in _ALL}


def chip(name: str) -> Chip:
    """The chip of that name.

    Raises:
        UserError: there is none.
    """
    if name not in CHIPS:
        raise mistake("unknown chip", where="chip", expected=", ".join(CHIPS), found=repr(name))
    return CHIPS[name]


def chip_of(device_kind: str) -> Chip | None:
    """The chip that a `jax.Device.device_kind` names, None for one whose peak is not known here (any CPU)."""
    return next((c for c in _ALL if c.kind and c.kind.lower() in device_kind.lower()), None)
