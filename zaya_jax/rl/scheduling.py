"""Which problem comes next, over several environments: which environment, how hard, and from which seed.

    assignment, state = next_problem(schedule, state)
    problem = environments[assignment.environment].generate(assignment.seed, assignment.difficulty)
    state = observe(schedule, state, assignment.environment, assignment.difficulty, passed=13, count=16)

Assignment k depends on the schedule, its seed, k and what has been observed by then; on no generator that would have to
be stored. A run that goes on from a stored state therefore asks what it would have asked. A problem that cannot be
generated is passed over: the next one has another seed.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.environments.environment import Problem
from zaya_jax.errors import mistake
from zaya_jax.rl import checks
from zaya_jax.rl.checks import check_range
from zaya_jax.rl.curriculum import Adaptive, Level, Rule, Window
from zaya_jax.rl.curriculum import draw as draw_difficulty
from zaya_jax.rl.curriculum import observe as observe_level

RULES = ("adaptive", "window")
WEIGHTS = ("least_sampled", "shares")


@dataclasses.dataclass(frozen=True)
class Source:
    """An environment of a schedule.

    Attributes:
        environment: its name, by which it is found again.
        share: relative to the others', where shares decide; any positive number.
        start: the first difficulty, which `start_difficulty` finds.
        cap: the highest difficulty that it has, for environments that end; -1: none. A set of given problems, which
            has one difficulty only, has cap 0.

    Raises:
        UserError: a value is out of range.
    """

    environment: str
    share: float = 1.0
    start: int = 0
    cap: int = -1

    def __post_init__(self):
        check_range(self, "share", 0, above=True)
        check_range(self, "start", 0, whole=True)
        check_range(self, "cap", -1, whole=True)
        if 0 <= self.cap < self.start:
            found = f"start {self.start}, cap {self.cap}"
            raise mistake("starts beyond its cap", where=f"environment {self.environment!r}", found=found)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What a run draws from, and how.

    Attributes:
        sources: the environments, each once.
        rule: "adaptive" or "window": which of the next two moves the difficulties.
        adaptive, window: the rules' constants.
        weights: "least_sampled": environment i, drawn n_i times, comes with a probability in proportion to
            exp(-(n_i / share_i - min_j n_j / share_j) / evenness), so that counts keep to the shares, and none falls
            behind for long. The report (IV-B4) says that the least sampled are favoured, not how. "shares": in
            proportion to share_i, each draw for itself.
        evenness: draws that make an environment e times less likely; with equal shares counts differ by about its
            square root. Undisclosed.
        seed: of the draws and the problems.

    Raises:
        UserError: a value is out of range, or there is no environment, or one twice.
    """

    sources: tuple[Source, ...]
    rule: str = "adaptive"
    adaptive: Adaptive = dataclasses.field(default_factory=Adaptive)
    window: Window = dataclasses.field(default_factory=Window)
    weights: str = "least_sampled"
    evenness: float = 1.0
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "sources", tuple(self.sources))
        check_range(self, "evenness", 0, above=True)
        check_range(self, "seed", 0, whole=True)
        for name, known in {"rule": RULES, "weights": WEIGHTS}.items():
            if getattr(self, name) not in known:
                found = repr(getattr(self, name))[:40]
                raise mistake("unknown", where=f"Schedule.{name}", expected=" or ".join(known), found=found)
        names = self.names
        if not names:
            raise mistake("no environment", where="Schedule.sources", expected="at least one")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise mistake("the same environment twice", where="Schedule.sources", found=repr(twice))

    @property
    def names(self) -> tuple[str, ...]:
        """The environments."""
        return tuple(source.environment for source in self.sources)

    @property
    def chosen(self) -> Rule:
        """The rule that moves the difficulties."""
        return self.adaptive if self.rule == "adaptive" else self.window


@dataclasses.dataclass(frozen=True)
class Track:
    """Where an environment of a schedule stands.

    Attributes:
        environment: its name.
        level: its difficulty.
        drawn: groups begun.
        observed: groups completed.
    """

    environment: str
    level: Level
    drawn: int = 0
    observed: int = 0


@dataclasses.dataclass(frozen=True)
class State:
    """Where a schedule stands.

    Attributes:
        number: of the next assignment; so many have been made.
        tracks: one an environment, in the schedule's order.
    """

    number: int
    tracks: tuple[Track, ...]


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A problem to be made: number, environment, and what its `generate` takes."""

    number: int
    environment: str
    difficulty: int
    seed: int


def start(schedule: Schedule) -> State:
    """The state before the first draw."""
    return State(0, tuple(Track(source.environment, Level(source.start)) for source in schedule.sources))


def next_problem(schedule: Schedule, state: State) -> tuple[Assignment, State]:
    """The next assignment, and the state behind it. Seeds are numbers of 62 bits, another for every assignment."""
    rng = random.Random(f"{schedule.seed} {state.number}")  # of texts Python hashes all characters, everywhere alike
    place = _pick(probabilities(schedule, state), rng.random())
    track = state.tracks[place]
    difficulty = draw_difficulty(schedule.chosen, track.level, rng)
    assignment = Assignment(state.number, track.environment, difficulty, rng.getrandbits(62))
    drawn = dataclasses.replace(track, drawn=track.drawn + 1)
    return assignment, State(state.number + 1, _replaced(state.tracks, place, drawn))


def probabilities(schedule: Schedule, state: State) -> tuple[float, ...]:
    """How likely each environment is to come next, in the schedule's order."""
    if schedule.weights == "shares":
        weights = [source.share for source in schedule.sources]
    else:
        counts = [track.drawn / source.share for source, track in zip(schedule.sources, state.tracks)]
        weights = [math.exp(-(count - min(counts)) / schedule.evenness) for count in counts]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def observe(
    schedule: Schedule,
    state: State,
    environment: str,
    difficulty: int,
    passed: int,
    count: int,
    hardest: int | None = None,
) -> State:
    """The state after a completed group; see `curriculum.observe`. A difficulty stays below its environment's cap.

    Args:
        hardest: where the environment's difficulties end, if the group's problem told (`hardest_of`).

    Raises:
        UserError: the schedule has no such environment.
    """
    place = place_of(schedule, environment)
    source, track = schedule.sources[place], state.tracks[place]
    level = observe_level(schedule.chosen, track.level, difficulty, passed, count)
    for cap in (source.cap, hardest):
        if cap is not None and 0 <= cap < level.difficulty:
            level = dataclasses.replace(level, difficulty=cap)
    seen = dataclasses.replace(track, level=level, observed=track.observed + 1)
    return State(state.number, _replaced(state.tracks, place, seen))


def hardest_of(problem: Problem, difficulty: int) -> int | None:
    """Where an environment's difficulties end, as a problem that was asked for at `difficulty` tells it: at its own
    (`level`, `difficulty`), if its `meta` says `saturated`. None: there are harder ones, as far as it says. One that
    always says so stays where it starts, or falls."""
    if not problem.meta.get("saturated"):
        return None
    told = (problem.meta.get(name) for name in ("level", "difficulty"))
    return next((one for one in told if isinstance(one, int) and one >= 0), difficulty)


def place_of(schedule: Schedule, environment: str) -> int:
    """Where an environment stands in the schedule.

    Raises:
        UserError: it does not.
    """
    if environment not in schedule.names:
        expected = f"one of {', '.join(schedule.names)}"
        raise mistake("no such environment in the schedule", found=repr(environment), expected=expected)
    return schedule.names.index(environment)


def to_json(state: State) -> dict[str, Any]:
    """The record that `from_json` reads."""
    return checks.to_json(state)


def from_json(schedule: Schedule, record: Mapping[str, Any]) -> State:
    """A state from its record.

    Raises:
        UserError: it is none, or of other environments than the schedule's.
    """
    state = checks.from_json(State, record, "schedule state")
    names = tuple(track.environment for track in state.tracks)
    if names != schedule.names:
        fix = "go on with the environments that the run began with, in their order, or start a new one"
        raise mistake(
            "a state of other environments", where="schedule state",
            expected=", ".join(schedule.names), found=", ".join(names), fix=fix,
        )  # fmt: skip
    return state


def _pick(chances: Sequence[float], uniform: float) -> int:
    """The place at which the running sum passes `uniform`."""
    below = 0.0
    for place, chance in enumerate(chances):
        below += chance
        if uniform < below:
            return place
    # Rounding may leave the sum below 1: never an environment that could not come.
    return max(place for place, chance in enumerate(chances) if chance > 0)


def _replaced(tracks: tuple[Track, ...], place: int, track: Track) -> tuple[Track, ...]:
    return tracks[:place] + (track,) + tracks[place + 1 :]
