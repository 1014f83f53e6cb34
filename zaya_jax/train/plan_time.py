"""How long a training step takes: a roofline with shares of the peaks that are assumed, not measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from zaya_jax.train.plan_setup import Setup
from zaya_jax.train.plan_work import Collective, Work, collectives, memory_traffic, neighbours, work


@dataclasses.dataclass(frozen=True)
class Shares:
    """What is reached of a chip's peaks. None of ours has been measured on a GPU.

    Attributes:
        dense: of the peak in large products: the report's ">750 PFLOPS max achievable" of 1,024 MI300Xs are 0.56.
        grouped, attention: in our own kernels, which nobody has tuned yet: a guess.
        memory: of the memory's bandwidth: 4.33 of 5.3 TB/s on MI300X (second-hand from arXiv 2511.17127) are 0.82.
        links: of links and network: a usual share of collectives of some hundred MB.
    """

    dense: float = 0.5
    grouped: float = 0.35
    attention: float = 0.3
    memory: float = 0.8
    links: float = 0.7


ASSUMED = Shares()


@dataclasses.dataclass(frozen=True)
class Time:
    """Seconds of one step on the slowest device.

    Attributes:
        computing: products by kind, and what goes through memory between them; these follow each other.
        communication: each exchange.
        model_flops: of the device in a step, as MFU counts them.
        peak: of the chip, FLOP/s of the compute type.
        tokens: of the device in a step.
    """

    computing: Mapping[str, float]
    communication: Mapping[Collective, float]
    model_flops: float
    peak: float
    tokens: float

    @property
    def step(self) -> float:
        """If no communication hides behind computing."""
        return sum(self.computing.values()) + sum(self.communication.values())

    @property
    def hidden(self) -> float:
        """If all communication could."""
        return max(sum(self.computing.values()), sum(self.communication.values()))

    @property
    def tokens_per_second(self) -> float:
        """Of one device, in a step where nothing hides."""
        return self.tokens / self.step

    @property
    def mfu(self) -> float:
        """Model FLOPs of a step over what the chip could do in its time, where nothing hides."""
        return self.model_flops / (self.step * self.peak)

    def eta(self, steps: int) -> float:
        """Seconds of that many steps."""
        return steps * self.step


def time(setup: Setup, shares: Shares = ASSUMED) -> Time:
    """The time of a step."""
    done, chip = work(setup), setup.device
    return Time(
        computing=_computing(setup, done, shares),
        communication={c: _seconds(setup, c, shares) for c in collectives(setup)},
        model_flops=done.model,
        peak=chip.peak(setup.dtype),
        tokens=setup.tokens / setup.devices,
    )


def _computing(setup: Setup, done: Work, shares: Shares) -> dict[str, float]:
    chip, exact = setup.device, "float64" if setup.dtype == "float64" else "float32"
    peak = chip.peak(setup.dtype)
    iteration = exact if setup.optimizer.newton_schulz_dtype == "exact" else "bfloat16"
    found = {
        "dense products": done.dense / (peak * shares.dense),
        "experts": done.grouped / (peak * shares.grouped),
        "attention": done.attention / (peak * shares.attention),
        "memory between them": memory_traffic(setup) / (chip.bandwidth * shares.memory),
        f"Newton-Schulz in {iteration}": done.newton_schulz / (chip.peak(iteration) * shares.dense),
    }
    return {kind: seconds for kind, seconds in found.items() if seconds}


def _seconds(setup: Setup, exchange: Collective, shares: Shares) -> float:
    """The slower of links and network.

    Rings: where several devices of a group share a node, each ring of theirs crosses nodes with its own network card,
    and a card carries that part of what a device sends. All-to-all: a device's own card sends what leaves its node.
    """
    devices, near = neighbours(setup, exchange.axes)
    inside, outside = exchange.sent if near > 1 else 0, exchange.sent if near < devices else 0
    if exchange.kind == "all-to-all":
        inside, outside = (exchange.sent * part / (devices - 1) for part in (near - 1, devices - near))
    elif near < devices:
        outside = exchange.sent / near
    chip = setup.device
    return max(inside / (chip.link * shares.links), outside / (chip.network * shares.links))
