"""What must hold of a compiled program, told from its text and its memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from experiments.rocm import by_hand, hlo
from experiments.rocm.figures import Figures
from experiments.rocm.programs import Program
from zaya_jax.model import ModelConfig

LIMIT = 1.3  # of what the expert layer's bytes may be of those counted by hand
_FORWARD = {"cca_mix", "attention", "grouped_swiglu", "grouped_matmul"}
_GRADIENTS = {
    "experts": {"grouped_swiglu_d_halves", "grouped_matmul_d_lhs", "grouped_matmul_d_rhs"},
    "attention": {"cca_d_sums", "cca_d_depthwise", "cca_d_taps", "attention_d_queries", "attention_d_keys"},
}
EXPECTED = {
    "prefill": _FORWARD,
    "decode": _FORWARD,
    "train": _FORWARD | _GRADIENTS["experts"] | _GRADIENTS["attention"],
    "experts": {"grouped_swiglu", "grouped_matmul"} | _GRADIENTS["experts"],
}


def problems(config: ModelConfig, program: Program, figures: Figures, text: str, memory: int) -> list[str]:
    """What is wrong with a compiled program, in words; `memory` is what a device has, bytes."""
    found = [f"kernel {name} is missing" for name in sorted(EXPECTED[program.task] - set(figures.kernels))]
    if figures.peak > memory:
        found.append(f"needs {figures.peak:,} bytes a device, which has {memory:,}")
    for what, shapes in (
        ("experts x tokens x width", dispatched(config, program, text)),
        ("scores", scores(config, program, text)),
    ):
        found += [f"an array of {what}: {list(shape)}" for shape in sorted(shapes)]
    found += whole_batches(program, hlo.kernels(text))
    if program.task == "experts" and (ratio := expert_ratio(config, program, figures)) > LIMIT:
        found.append(f"the expert layer takes {ratio:.2f} times the bytes counted by hand, at most {LIMIT}")
    return found


def expert_ratio(config: ModelConfig, program: Program, figures: Figures) -> float:
    """Bytes of the expert layer's program over inputs, outputs and residuals counted by hand."""
    return figures.peak / sum(counted(config, program))


def counted(config: ModelConfig, program: Program) -> by_hand.Bytes:
    """The expert layer's bytes, by hand."""
    size = {"bfloat16": 2, "float32": 4}[program.params]
    return by_hand.expert_layer(config, program.rows * program.tokens, size)


def dispatched(config: ModelConfig, program: Program, text: str) -> set[hlo.Shape]:
    """Shapes with an axis of experts, one of a device's or of all tokens, and one as wide as the model or an expert.

    Where there are as many tokens as gate and up rows (4096) such an array has the shape of the experts' own weights,
    which is left out. A single token is no axis.
    """
    E, D, F = config.num_experts, config.hidden_size, config.expert_hidden_size
    weights = [Counter(shape) for shape in ((E, 2 * F, D), (E, D, F))]
    counts = {rows * program.tokens for rows in (program.rows, program.local_rows)} - {1}
    wanted = [Counter((E, tokens, width)) for tokens in counts for width in {D, F, 2 * F}]

    def bad(shape: hlo.Shape) -> bool:
        axes = Counter(shape)
        ours = axes - Counter({1: axes[1], config.num_layers: 1})
        return any(axes >= want for want in wanted) and ours not in weights

    return {array.shape for array in hlo.arrays(text) if bad(array.shape)}


def scores(config: ModelConfig, program: Program, text: str) -> set[hlo.Shape]:
    """Shapes with an axis of queries and one of keys; decoding, with one query a row, has none.

    Where there are as many tokens as gate and up rows (4096) the experts' [tokens, gate and up] have two equal axes,
    too: those are left out, unless the instruction is one of attention's.
    """
    T = program.tokens
    if T == 1 or program.task == "experts":
        return set()
    experts = Counter((program.local_rows * T, 2 * config.expert_hidden_size))

    def bad(array: hlo.Array) -> bool:
        axes = Counter(array.shape)
        own = axes - Counter({1: axes[1]}) == experts and "/attention/" not in array.scope
        return axes[T] >= 2 and not own

    return {array.shape for array in hlo.arrays(text) if bad(array)}


def whole_batches(program: Program, kernels: Iterable[hlo.Kernel]) -> list[str]:
    """Kernels of a sharded program that read the rows of all devices: the batch stands first or second, or is flat."""
    if program.devices == 1:
        return []

    def whole(shape: hlo.Shape) -> bool:
        return program.rows in shape[:2] or (program.tokens > 1 and program.rows * program.tokens in shape)

    return [
        f"kernel {kernel.name} reads the whole batch: {list(shape)}"
        for kernel in kernels
        for shape in kernel.operands
        if whole(shape)
    ]
