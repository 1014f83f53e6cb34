"""How a model is computed: everything that may change without changing the function."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from zaya_jax.errors import mistake
from zaya_jax.parallel import AXES

Layout = Literal["stacked", "unstacked"]
Implementation = Literal["auto", "xla", "pallas", "interpret", "reference"]


@dataclasses.dataclass(frozen=True)
class Execution:
    """Frozen and hashable: a static argument of every jitted function.

    Attributes:
        dtype: the precision policy. "float64" and "float32" compute everything in that type; "bfloat16" multiplies in
            bfloat16 and keeps float32 for the residual stream, the norms, the q-k mean and norm, the CCA cache state,
            the router from its softmax on and the logits (report, section IV-D).
        layout: "stacked" weights are scanned by period (training, accelerators); "unstacked" ones are unrolled layer
            by layer and expert by expert (CPU).
        attention, cca, experts: which implementation of each operation of `kernels_pallas` runs.
        programs: what a compiled program of an unstacked model holds where the library compiles it
            (`model.programs`): the "whole" model, or one "layer"; "auto" decides by the number of experts.
        remat: what the backward pass recomputes: "none", "block" (everything inside a block), or "dots" (all but the
            results of the dense products: attention's projections and the router's; the experts' are too many).
        mesh: the devices that a batch is spread over (`parallel.local`): rows, and in calls without a cache the tokens
            of each row. Both must divide evenly. None is one device.
        dispatch: how tokens and experts come together on a mesh with an axis `expert`: "gather" brings all experts to
            all devices; with "dense" and "ragged" tokens go to their experts' owners (`parallel.exchange`); "auto" is
            "ragged" where the platform has it, else "dense". Unstacked experts are always gathered.
    """

    dtype: Literal["float64", "float32", "bfloat16"] = "float32"
    layout: Layout = "stacked"
    attention: Implementation = "auto"
    cca: Implementation = "auto"
    experts: Implementation = "auto"
    programs: Literal["auto", "whole", "layer"] = "auto"
    remat: Literal["none", "block", "dots"] = "none"
    mesh: jax.sharding.Mesh | None = None
    dispatch: Literal["auto", "gather", "dense", "ragged"] = "auto"

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise mistake("unknown choice", where=f"Execution.{name}", expected=choices, found=repr(value))
        if self.layout == "unstacked" and self.dispatch in ("dense", "ragged"):
            where, expected = "Execution.dispatch", '"auto" or "gather" with layout "unstacked"'
            raise mistake("unstacked experts stay whole", where=where, expected=expected, found=repr(self.dispatch))
        axes = getattr(self.mesh, "axis_names", ()) if self.mesh is not None else AXES
        if set(axes) != set(AXES):
            expected = f"None or a mesh with the axes {', '.join(AXES)}"
            fix = "parallel.make_mesh makes one"
            raise mistake("no such mesh", where="Execution.mesh", expected=expected, found=repr(self.mesh), fix=fix)

    @property
    def compute_dtype(self) -> jnp.dtype:
        """The type of matrix products' operands."""
        return jnp.dtype(self.dtype)

    @property
    def exact_dtype(self) -> jnp.dtype:
        """The type of what must not be rounded: float32, or float64 under the float64 policy."""
        return jnp.dtype("float64" if self.dtype == "float64" else "float32")


_IMPLEMENTATIONS = ("auto", "xla", "pallas", "interpret", "reference")
_CHOICES = {
    "dtype": ("float64", "float32", "bfloat16"),
    "layout": ("stacked", "unstacked"),
    "attention": _IMPLEMENTATIONS,
    "cca": _IMPLEMENTATIONS,
    "experts": _IMPLEMENTATIONS,
    "programs": ("auto", "whole", "layer"),
    "remat": ("none", "block", "dots"),
    "dispatch": ("auto", "gather", "dense", "ragged"),
}
