"""Plans in words: a table for a terminal, a column for each plan, and JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from zaya_jax.train.plan import CHANGES, MARGIN, Plan, remedy
from zaya_jax.train.plan_memory import Item, total
from zaya_jax.train.plan_time import ASSUMED, Shares

_LABEL, _COLUMN = 46, 16  # characters


def table(plans: Sequence[Plan], steps: int = 0) -> str:
    """All plans side by side, up to three within 100 columns."""
    rows = [*_run(plans), *_memory(plans), *_exchanges(plans), *_times(plans, steps)]
    lines = [label.ljust(_LABEL) + "".join(cell.rjust(_COLUMN) for cell in cells) for label, *cells in rows]
    advice = [_advice(p) for p in plans if not p.fits]
    return "\n".join(line.rstrip() for line in [*_head(plans[0]), "", *lines, *advice]) + "\n"


def assumptions(shares: Shares = ASSUMED) -> str:
    """What the figures rest on."""
    return _ASSUMPTIONS.format(**dataclasses.asdict(shares), margin=f"{MARGIN:.0%}")


def to_json(p: Plan) -> dict[str, Any]:
    """Everything of a plan: sizes in bytes, times in seconds."""
    setup = dataclasses.asdict(p.setup) | {"sizes": p.setup.sizes._asdict()}
    moments = {name: _items(items) for name, items in p.memory.moments.items()}
    exchanges = [c._asdict() | {"seconds": seconds} for c, seconds in p.time.communication.items()]
    time = {"step": p.time.step, "hidden": p.time.hidden, "computing": dict(p.time.computing), "mfu": p.time.mfu}
    return {
        "setup": setup,
        "parameters": p.parameters,
        "active_parameters": p.active_parameters,
        "flops_per_token": p.flops_per_token,
        "memory": {"state": _items(p.memory.state), "moments": moments, "peak": p.memory.peak, "limit": p.limit},
        "fits": p.fits,
        "collectives": exchanges,
        "time": time | {"tokens_per_second_per_device": p.time.tokens_per_second},
    }


def _items(items: Iterable[Item]) -> dict[str, float]:
    return {item.what: item.bytes for item in items}


def _head(p: Plan) -> list[str]:
    s = p.setup
    memories = {True: f"Muon, momentum {s.optimizer.momentum:g}", False: "AdamW"}[s.muon]
    return [
        f"{_large(p.parameters)} parameters, {_large(p.active_parameters)} active, embedding aside.",
        f"{_flops(p.flops_per_token)} a token: 6 x (active + head) + 3 x attention, nothing recomputed.",
        f"{memories}, ZeRO-1 {'on' if s.optimizer.zero1 else 'off'}; {s.dtype}, remat {s.remat}, "
        f"loss by {s.loss_chunk or 'all'} tokens, dispatch {s.dispatch}.",
    ]


def _large(count: float) -> str:
    return f"{count / 1e9:.3f} B" if count >= 1e8 else f"{count / 1e6:.3f} M"


def _flops(count: float) -> str:
    return f"{count / 1e9:.2f} GFLOP" if count >= 1e8 else f"{count / 1e6:.2f} MFLOP"


def _run(plans: Sequence[Plan]) -> list[list[str]]:
    setups = [p.setup for p in plans]
    rows = [
        ["", *(f"{s.nodes}x{s.devices_per_node} {s.chip}" for s in setups)],
        ["mesh: data x fsdp x expert x context", *(" x ".join(map(str, s.sizes)) for s in setups)],
        ["rows x length of a step", *(f"{s.rows:,} x {s.length:,}" for s in setups)],
        ["tokens of a device and microbatch", *(f"{s.local_tokens:,}" for s in setups)],
    ]
    return [*rows, ["microbatches of a step", *(str(s.accumulate) for s in setups)], [""]]


def _memory(plans: Sequence[Plan]) -> list[list[str]]:
    states = [_items(p.memory.state) for p in plans]
    largest = [_items(p.memory.moments[p.memory.largest]) for p in plans]
    rows = [["memory of a device, GB"], *_rows(states, 1e9)]
    rows += [["  at the largest moment:", *(_MOMENTS[p.memory.largest] for p in plans)], *_rows(largest, 1e9, "    ")]
    for moment, short in _MOMENTS.items():
        cells = ["" if p.memory.largest == moment else f"({total(p.memory.moments[moment]) / 1e9:.2f})" for p in plans]
        rows += [[f"  ({short} would take)", *cells]] if any(cells) else []
    peaks = [f"{p.memory.peak / 1e9:,.1f}" for p in plans]
    limit = [f"{p.limit / 1e9:,.1f}" for p in plans]
    rows += [["  peak", *peaks], [f"  {MARGIN:.0%} of the device", *limit]]
    return [*rows, ["  fits", *("yes" if p.fits else "NO" for p in plans)], [""]]


def _exchanges(plans: Sequence[Plan]) -> list[list[str]]:
    columns = [
        {f"{'+'.join(c.axes)}: {c.kind}, {c.what}": c.sent for c in p.time.communication if _counts(p, c)}
        for p in plans
    ]
    rest = [sum(c.sent for c in p.time.communication if not _counts(p, c)) for p in plans]
    rows = [["sent by a device in a step, GB"], *_rows(columns, 1e9)]
    return [*rows, ["  all else", *(_number(r / 1e9) for r in rest)], [""]]


def _counts(p: Plan, exchange) -> bool:
    """Whether an exchange is more than 1 % of all communication."""
    return p.time.communication[exchange] > 0.01 * sum(p.time.communication.values())


def _times(plans: Sequence[Plan], steps: int) -> list[list[str]]:
    times = [p.time for p in plans]
    rows = [["seconds of a step, by a roofline"], *_rows([t.computing for t in times], 1)]
    rows += [["  communication", *(_number(sum(t.communication.values())) for t in times)]]
    rows += [["  step, if no communication hides", *(_number(t.step) for t in times)]]
    rows += [["  step, if all of it hides behind computing", *(_number(t.hidden) for t in times)]]
    rows += [[""], ["if none hides: tokens/s of a device", *(f"{t.tokens_per_second:,.0f}" for t in times)]]
    rows += [["               tokens/s", *(f"{p.time.tokens_per_second * p.setup.devices:,.0f}" for p in plans)]]
    rows += [["               MFU", *(f"{t.mfu:.1%}" for t in times)]]
    if steps:
        rows += [[f"               {steps:,} steps", *(_duration(t.eta(steps)) for t in times)]]
    return rows


def _rows(columns: Sequence[dict[str, float]], unit: float, indent: str = "  ") -> list[list[str]]:
    """A row for each name that any column has."""
    named = list(dict.fromkeys(name for column in columns for name in column))
    return [[indent + name, *(_number(c[name] / unit) if name in c else "" for c in columns)] for name in named]


def _number(x: float) -> str:
    return f"{x:,.2f}" if x >= 0.095 else f"{x:.4f}" if x >= 0.00005 else "0"


def _duration(seconds: float) -> str:
    unit, size = next(((u, n) for u, n in (("d", 86400), ("h", 3600), ("min", 60)) if seconds >= n), ("s", 1))
    return f"{seconds / size:,.1f} {unit}"


def _advice(p: Plan) -> str:
    where, found = f"{p.setup.nodes}x{p.setup.devices_per_node}", remedy(p.setup)
    if found is None:
        return f"{where} does not fit, and none of the {len(CHANGES)} kinds of changes makes it fit."
    return f"{where} does not fit; it would with {' and '.join(found[0])}."


_MOMENTS = {"the loss": "loss", "a layer's backward pass": "backward pass", "the update": "update"}

_ASSUMPTIONS = """\
Memory: the state and the largest of three moments, as XLA:ROCm assigns them to the training step.
It fits within {margin} of the device. Experts are gathered as they are stored, in float32, all else in
the compute type; gradients are float32; buffers have the size of the worst case. Item by item:
docs/plan.md and the docstrings of zaya_jax/train/plan_memory.py.
Time: shares of the peaks are assumed, nothing here has run on a GPU: products {dense:g},
experts {grouped:g}, attention {attention:g}, memory {memory:g}, links {links:g}. One document a row, even routing,
one kind of work after the other, no time for launches, data or checkpoints.
MFU: model FLOPs of the step / (its time x the chip's dense peak in the compute type).
"""
