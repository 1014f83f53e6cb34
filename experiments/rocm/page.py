"""`docs/mi300x.md`: the figures as tables, and what they prove."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.rocm import checks
from experiments.rocm.figures import Figures
from experiments.rocm.programs import Program
from zaya_jax.model import ModelConfig

_HEAD = """\
# ZAYA1-8B compiled for MI300X

Written by `make rocm-aot`; do not edit. Figures that are more than 5 % from `{committed}` make the command fail;
`make rocm-aot ARGS=--update` writes both anew.

Compiled, whole, by XLA's own compiler for ROCm, on a machine without a GPU and without ROCm:
{versions}.
The target is MI300X (gfx942), described by its data sheet; the 8 are one node. Weights, optimizer memories and batch
are shapes only. The model is the preset `zaya1_8b`, stacked, computing in bfloat16, with `implementation="pallas"` for
attention, the CCA mix and the experts. Prefill gives the last token's logits and the cache; a decoding step reads one
token a row and writes the cache in place; a training step is forward, backward (recomputing each block) and AdamW, with
float32 parameters and memories. On 8, weights and optimizer memories are sharded over all 8 (FSDP), and so are the
rows; experts are not exchanged (expert parallelism is to come).
"""

_PROOF = """\
## What this proves, and what it does not

- The real compiler accepts the whole program: every kernel is lowered and becomes machine code for gfx942, every buffer
  is assigned, every collective is placed. The bytes are the compiler's own assignment; what ROCm, RCCL and the
  allocator take beside it is not in them.
- **Nothing here has run on an MI300X.** No result, no speed. What stands in for the ROCm libraries only lets the
  compiler load, and answers "no device" to every question.
- Without a device nothing is autotuned: tiles of XLA's own matrix products and fusions are defaults, and which of a
  library's algorithms would be taken (hipBLASLt, RCCL) is not exercised. On an MI300X the compiler may choose
  otherwise, and need other temporary memory.
- Counts are of instructions: a loop over the 40 layers holds its kernels and collectives once.
- No array of experts x tokens x width, and none of queries x keys, is anywhere in these programs, not even inside of
  fusions; no kernel on 8 MI300Xs reads more rows than its device's. Each would make the command fail. Where 4,096
  tokens meet the 4,096 gate and up rows of an expert, shapes alone cannot tell [experts, tokens, width] from the
  weights: there the finding rests on the same code with 32,768 tokens.
- The loop over layers copies each layer's experts, and its part of the cache, out of the stacked arrays before a kernel
  reads them (`loop_dynamic_slice_fusion` in what `--keep` writes): a custom call takes whole operands only. Decoding,
  which needs few experts a step, pays for all of them.
- FSDP gathers each layer's weights for every call: right for training and long prefills, not how one would decode.
"""


def page(
    config: ModelConfig, found: Mapping[Program, Figures], versions: Mapping[str, str], committed: str, memory: int
) -> str:
    """The whole page; `memory` is what a device has, bytes."""
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    whole = {program: figures for program, figures in found.items() if program.task != "experts"}
    layers = {program: figures for program, figures in found.items() if program.task == "experts"}
    parts = [
        _HEAD.format(committed=committed, versions=names),
        f"## Memory\n\nGB (10^9 bytes) a device, of {memory / 1e9:.1f} (192 GiB).\n",
        _table(
            [
                "program",
                "MI300X",
                "arguments",
                "outputs",
                "of them in place",
                "temporary",
                "peak",
                "fits",
            ],
            [[*_name(p), *_memory(f), "yes" if f.peak <= memory else "**no**"] for p, f in whole.items()],
        ),
        "## What the programs are made of\n",
        _table(
            ["program", "MI300X", "Pallas kernels", "library calls", "XLA's matrix products", "collectives"],
            [
                [*_name(p), _counts(f.kernels), _counts(f.library_calls), str(f.products), _counts(f.collectives)]
                for p, f in whole.items()
            ],
        ),
        _layers(config, layers),
        _PROOF,
    ]
    return "\n".join(parts)


def title(program: Program) -> str:
    """What a program does, in words."""
    if program.task == "decode":
        return f"decode, {program.rows} x 1, cache {program.cache:,}"
    return f"{program.task}, {program.rows} x {program.tokens:,}"


def _name(program: Program) -> list[str]:
    return [title(program), str(program.devices)]


def _memory(f: Figures) -> list[str]:
    sizes = (f.argument, f.output, f.aliased, f.temporary, f.peak)
    return [f"{size / 1e9:.2f}" for size in sizes]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _layers(config: ModelConfig, found: Mapping[Program, Figures]) -> str:
    head = [
        "tokens",
        "weights",
        "inputs",
        "outputs",
        "kept for the backward pass",
        "sum by hand",
        "XLA's peak",
        "ratio",
    ]
    return (
        "## One layer's experts, forward and backward, on one MI300X\n\n"
        f"MB (10^6 bytes). More than {checks.LIMIT} times the sum by hand makes the command fail.\n\n"
        + _table(head, [_layer(config, program, figures) for program, figures in found.items()])
    )


def _layer(config: ModelConfig, program: Program, figures: Figures) -> list[str]:
    hand = checks.counted(config, program)
    sizes = [*hand, sum(hand), figures.peak]
    ratio = checks.expert_ratio(config, program, figures)
    return [
        f"{program.rows * program.tokens:,}",
        program.params,
        *(f"{size / 1e6:,.0f}" for size in sizes),
        f"{ratio:.2f}",
    ]
