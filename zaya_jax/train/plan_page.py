"""docs/plan.md: plans of ZAYA1-8B on MI300X, and how far plans are from what is compiled."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from zaya_jax.model import PRESETS
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.plan import Plan, plan
from zaya_jax.train.plan_setup import Setup, make_setup, parse_mesh
from zaya_jax.train.plan_text import assumptions, table


def compiled_setup(case: Mapping[str, Any]) -> Setup:
    """The setup of a compiled training step of ZAYA1-8B on MI300X.

    Args:
        case: `rows` and `length`; and where they differ, `mesh` (one device), `nodes` (1), `optimizer` (adamw), its
            `momentum` and `zero1`, `remat` (block), `loss_chunk` (1024) and `dispatch` (gather).
    """
    given = dict(case)
    mesh = given.pop("mesh", "")
    optimizer = {name: given.pop(name) for name in ("momentum", "zero1") if name in given}
    config = OptimizerConfig(name=given.pop("optimizer", "adamw"), **optimizer)
    nodes = given.pop("nodes", 1)
    topology = f"{nodes}x{math.prod(parse_mesh(mesh)) // nodes}"
    return make_setup(PRESETS["zaya1_8b"](), topology, mesh=mesh, optimizer=config, **given)


# The training steps of docs/mi300x.json, as `compiled_setup` has them.
MI300X: Mapping[str, Mapping[str, Any]] = {
    "train_1x4096": {"rows": 1, "length": 4096, "loss_chunk": 0},
    "train_8x4096_on_8": {"rows": 8, "length": 4096, "mesh": "fsdp=8", "loss_chunk": 0},
}
LENGTHS = (4096, 32768, 131072)
TOPOLOGIES = ("1x8", "128x8")
REPORT_SECONDS = 2.5  # of a step of 4096 x 4,096 tokens on 1,024 MI300X (report, App. B and Table XIV)


def page(docs: pathlib.Path) -> str:
    """The whole page; `docs` is the directory with `mi300x.json` and `plan_compiled.json`."""
    parts = [_HEAD, *map(_tables, LENGTHS), f"```\n{assumptions()}```\n", _report(), _compiled(docs)]
    return "\n".join(parts)


def compiled(docs: pathlib.Path) -> list[tuple[Mapping[str, Any], Mapping[str, int]]]:
    """Cases of `compiled_setup` and the bytes of their compiled programs: argument, temporary, peak."""
    whole = json.loads((docs / "mi300x.json").read_text(encoding="utf-8"))
    steps = json.loads((docs / "plan_compiled.json").read_text(encoding="utf-8"))
    return [(case, whole[name]) for name, case in MI300X.items()] + [(step["case"], step) for step in steps]


def _tables(length: int) -> str:
    model, muon = PRESETS["zaya1_8b"](), OptimizerConfig(name="muon")
    plans = [plan(make_setup(model, topology, length, optimizer=muon)) for topology in TOPOLOGIES]
    command = f"python -m experiments.plan --topology={','.join(TOPOLOGIES)} --length={length}"
    return f"## {length:,} tokens a row\n\n`{command}`\n\n```\n{table(plans)}```\n"


def _report() -> str:
    bf16, exact = "bfloat16", "exact"
    rows = [
        ("data=1024, as the report (DP + ZeRO-1)", _published("data=1024", exact)),
        ("the same, Newton-Schulz in bfloat16", _published("data=1024", bf16)),
        ("data=128, fsdp=8, as above", _published("data=128,fsdp=8", exact)),
        ("the same, Newton-Schulz in bfloat16", _published("data=128,fsdp=8", bf16)),
    ]
    lines = [
        f"| {name} | {p.memory.peak / 1e9:.1f} | {p.time.step:.2f} | {p.time.hidden:.2f} "
        f"| {p.time.tokens_per_second:,.0f} | {p.time.mfu:.1%} |"
        for name, p in rows
    ]
    one = rows[0][1]
    theirs = one.time.tokens / REPORT_SECONDS
    mfu = one.time.model_flops / (REPORT_SECONDS * one.time.peak)
    lines.append(f"| **the report** | | **{REPORT_SECONDS}** | | **{theirs:,.0f}** | **{mfu:.1%}** |")
    seconds = {p.setup.optimizer.newton_schulz_dtype: _iteration(p) for _, p in rows[:2]}
    return _REPORT.format(
        lines="\n".join(lines),
        exact=seconds[exact],
        bf16=seconds[bf16],
        shared=_iteration(rows[2][1]),
        mfu=f"{mfu:.1%}",
    )


def _published(mesh: str, newton_schulz: str) -> Plan:
    optimizer = OptimizerConfig(name="muon", newton_schulz_dtype=newton_schulz)
    return plan(make_setup(PRESETS["zaya1_8b"](), "128x8", 4096, rows=4096, mesh=mesh, optimizer=optimizer))


def _iteration(p: Plan) -> str:
    return f"{next(s for kind, s in p.time.computing.items() if kind.startswith('Newton')):.2f}"


def _compiled(docs: pathlib.Path) -> str:
    lines = []
    for case, bytes_ in compiled(docs):
        memory = plan(compiled_setup(case)).memory
        state = sum(item.bytes for item in memory.state)
        lines.append(
            f"| {_words(case)} | {state / 1e9:.2f} | {bytes_['argument'] / 1e9:.2f} | {memory.peak / 1e9:.2f} "
            f"| {bytes_['peak'] / 1e9:.2f} | {memory.peak / bytes_['peak']:.3f} | {memory.largest} |"
        )
    return _COMPILED.format(lines="\n".join(lines))


def _words(case: Mapping[str, Any]) -> str:
    chunk = case.get("loss_chunk", 1024)
    words = [f"{case['rows']} x {case['length']:,}", case.get("mesh", "one device"), case.get("optimizer", "adamw")]
    words += [f"remat {case['remat']}"] if "remat" in case else []
    words += ["whole logits"] if not chunk else []
    words += [f"dispatch {case['dispatch']}"] if "dispatch" in case else []
    words += ["no momentum"] if case.get("momentum") == 0 else []
    words += [f"{case['accumulate']} microbatches"] if "accumulate" in case else []
    return ", ".join([*words, *(["no ZeRO-1"] if case.get("zero1") is False else [])])


_HEAD = """\
# Planning a run

Written by `python -m experiments.plan --page=docs/plan.md`; do not edit.

`python -m experiments.plan` tells of a training run, without its devices, what a device's memory holds, what it sends
over each axis of the mesh, and how long a step takes by a roofline. It is arithmetic on the table of weights and on the
rules by which they are split; nothing is allocated or compiled, and **nothing here has run on a GPU**. Memory is
checked against XLA's compiler for ROCm (below); times are checked against nothing but one published figure.

If no mesh is given, context is 1 up to 16K, 2 at 32K and 8 at 131K as in the report, FSDP takes the rest of a node,
data goes across nodes; if no rows are given, a device gets about 16,384 tokens. A run that takes more than 92 % of a
device does not fit, and the first change of this list that makes it fit is named: remat, the loss in chunks, ZeRO-1,
fewer rows at a time, FSDP within a node and then over more, context, more nodes.
"""

_REPORT = """\
## The report's own run

128 nodes of 8 MI300X, 4096 rows of 4,096 tokens, 2.5 s a step (report, App. B; that all 1,024 GPUs took part is our
reading). What the plan says of the same batch, Muon with momentum, remat of blocks:

| mesh | GB a device | s a step, nothing hides | all hides | tokens/s a device | MFU |
|---|---|---|---|---|---|
{lines}

- The report's own figure is {mfu} MFU by our formula. It is the only one published, and what its 2.5 s consist of is
  not known: neither its recomputation, nor the type of its Newton-Schulz iteration, nor what it hides.
- That some of our figures lie near it proves little. They are bounds with assumed shares of the peaks, without
  launches, uneven routing, stragglers or checkpoints; our kernels have never run. A first run may well take two or
  three times as long.
- Newton-Schulz counts: neither layers (40) nor experts (16) divide by data=1024, so that ZeRO-1 leaves the matrices'
  momentum whole and every device orthogonalises all of them, {exact} s in float32, {bf16} s in bfloat16.
  FSDP within a node shares that among 8 ({shared} s in float32), and the 128 groups still all do the same.
  Memories that split layers and experts together (40 x 16 = 5 x 128) would share it among all.
"""

_COMPILED = """\
## Against the compiler

The training step of ZAYA1-8B, compiled whole by XLA for MI300X without one: `docs/mi300x.json` (whole logits) and
`docs/plan_compiled.json` (mostly with the loss in chunks of 1,024 tokens; `python -m experiments.plan_rocm` writes it),
three of them for 1,024 devices. GB of one device; remat of blocks where nothing is said. Experts are
gathered where no dispatch is said.

| step | state, planned | compiled | peak, planned | compiled | ratio | largest moment |
|---|---|---|---|---|---|---|
{lines}

- The state is arithmetic, and equal to the last megabytes (paddings, scalars).
- XLA sets up the gradients of all layers before the loss; with FSDP it keeps the device's parts of the layers a second
  time, their split axis first, to gather from; it gathers experts in float32, as they are stored, and copies what it
  has gathered for the kernel. The plan counts all of that because it was seen in the compiler's buffers; a program
  without it would be smaller. Casting experts before they are gathered would halve what is sent.
- Muon on one device: the plan counts the results of all matrices beside their gradients, XLA finds places for some.
- data=128 divides neither layers nor experts: AdamW's memories are then split along the matrices themselves. What XLA
  does about the gradients in between was not followed up: 8 % and 5 % off, one above, one below. expert=8 is 6 % above.
- Where FSDP shares the rows with another axis, XLA does not split the gradient of the embedding's look-up: a whole
  [V, D] in float32 on every device, and all of it sent. A constraint on that gradient should spare both.
- Whole logits of 32,768 tokens (not in the table) were planned at 205 GB and compiled to 170: beyond 80 % of the device
  XLA starts to recompute. remat "none" with whole logits on one device just meets that limit.
- remat "dots" keeps the dense products of attention and router: at 64 rows on eight devices 23 GB
  more than "block".
- Context parallelism (32K over 2, 131K over 8) and dispatch "dense" and "ragged" compile, and to about what is planned;
  at 32K the gathered keys and what is computed from them take 4 % more.
"""
