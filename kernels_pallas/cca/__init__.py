"""The CCA mix: from projected queries and keys to those that attention meets."""

from kernels_pallas.cca.api import CCAWeights, cca_mix

__all__ = ["CCAWeights", "cca_mix"]
