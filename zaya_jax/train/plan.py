"""The plan of a run: does it fit, what is exchanged, how long does a step take - without the devices.

    plan(Setup(PRESETS["zaya1_8b"](), rows=32, length=4096, sizes=Sizes(fsdp=8), devices_per_node=8))

Pure arithmetic on the table of weights; nothing is allocated or compiled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from zaya_jax.model.weights import count_active_parameters, count_parameters
from zaya_jax.train.plan_memory import Memory, memory
from zaya_jax.train.plan_setup import Setup, mesh_text
from zaya_jax.train.plan_time import ASSUMED, Shares, Time, time
from zaya_jax.train.plan_work import model_flops_per_token

MARGIN = 0.92  # of a device's memory that a plan may use: the rest is the allocator's and the libraries'


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is known of a run before it starts.

    Attributes:
        setup: the run.
        parameters, active_parameters: of the model, see `model.weights`.
        flops_per_token: see `plan_work.model_flops_per_token`.
        memory: of one device, bytes.
        time: of one step, seconds.
    """

    setup: Setup
    parameters: int
    active_parameters: int
    flops_per_token: float
    memory: Memory
    time: Time

    @property
    def limit(self) -> float:
        """Bytes that a device may use."""
        return MARGIN * self.setup.device.memory

    @property
    def fits(self) -> bool:
        """Whether the most bytes at any time are within the limit."""
        return self.memory.peak <= self.limit


def plan(setup: Setup, shares: Shares = ASSUMED) -> Plan:
    """Everything that can be told of a run from its setup."""
    return Plan(
        setup=setup,
        parameters=count_parameters(setup.model),
        active_parameters=count_active_parameters(setup.model),
        flops_per_token=model_flops_per_token(setup.model, setup.length),
        memory=memory(setup),
        time=time(setup, shares),
    )


def remedy(setup: Setup) -> tuple[tuple[str, ...], Setup] | None:
    """The first change that makes a run fit, and the run with it; None where nothing does.

    Each change alone, in the order of `CHANGES`, but for the last: more nodes. Then one on top of the other.
    """
    alone = (option for change in CHANGES[:-1] for option in change(setup))
    for words, changed in alone:
        if plan(changed).fits:
            return (words,), changed
    done: tuple[str, ...] = ()
    for change in CHANGES:
        options = list(change(setup))
        for words, changed in options:
            if plan(changed).fits:
                return (*done, words), changed
        words, least = min(options, key=lambda option: memory(option[1]).peak, default=("", setup))
        if memory(least).peak < memory(setup).peak:
            done, setup = (*done, words), least
    return None


Change = Iterator[tuple[str, Setup]]


def _remat(setup: Setup) -> Change:
    if setup.remat == "none":
        yield "remat=block", dataclasses.replace(setup, remat="block")


def _chunk(setup: Setup) -> Change:
    if setup.loss_chunk == 0 or setup.loss_chunk > 1024:
        yield "loss_chunk=1024", dataclasses.replace(setup, loss_chunk=1024)


def _zero1(setup: Setup) -> Change:
    if not setup.optimizer.zero1 and setup.devices > 1:
        yield "zero1", dataclasses.replace(setup, optimizer=dataclasses.replace(setup.optimizer, zero1=True))


def _accumulate(setup: Setup) -> Change:
    """Fewer rows at a time: the local rows divided by ever larger factors."""
    for factor in range(2, setup.local_rows + 1):
        if setup.local_rows % factor == 0:
            more = setup.accumulate * factor
            yield f"accumulate={more}", dataclasses.replace(setup, accumulate=more)


def _fsdp(setup: Setup) -> Change:
    """FSDP takes devices from data: within a node first, then over ever more nodes."""
    s = setup.sizes
    for factor in range(2, s.data + 1):
        if s.data % factor == 0:
            sizes = s._replace(data=s.data // factor, fsdp=s.fsdp * factor)
            yield f"mesh={mesh_text(sizes)}", dataclasses.replace(setup, sizes=sizes)


def _context(setup: Setup) -> Change:
    """Context takes devices from fsdp, or from data: rows are then spread over fewer, so that more accumulate."""
    for context in (2, 4, 8):
        factor, rest = divmod(context, setup.sizes.context)
        for axis in ("fsdp", "data"):
            size = getattr(setup.sizes, axis)
            if factor > 1 and rest == 0 and size % factor == 0 and setup.length % context == 0:
                sizes = setup.sizes._replace(context=context, **{axis: size // factor})
                more = setup.accumulate * (factor if setup.local_rows % factor else 1)
                yield f"mesh={mesh_text(sizes)}", dataclasses.replace(setup, sizes=sizes, accumulate=more)
                break


def _nodes(setup: Setup) -> Change:
    """More nodes, with FSDP over them, as far as there are rows for them."""
    for factor in (2, 4, 8, 16, 32, 64, 128):
        if setup.local_rows % factor == 0:
            sizes, nodes = setup.sizes._replace(fsdp=setup.sizes.fsdp * factor), setup.nodes * factor
            words = f"topology={nodes}x{setup.devices_per_node} with mesh={mesh_text(sizes)}"
            yield words, dataclasses.replace(setup, sizes=sizes, nodes=nodes)


CHANGES: tuple[Callable[[Setup], Change], ...] = (_remat, _chunk, _zero1, _accumulate, _fsdp, _context, _nodes)
