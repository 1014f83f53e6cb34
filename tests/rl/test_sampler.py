"""The pipeline with a scripted engine and a verifier that sleeps: what overlaps, and how old what is learnt may be."""

import dataclasses
import threading
import time
import types
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from tests.sampling.models import tokenizer
from zaya_jax.environments.environment import Problem, Verdict
from zaya_jax.environments.failures import Failures
from zaya_jax.errors import UserError
from zaya_jax.rl import completion
from zaya_jax.rl.buffer import Buffer, oldest_version
from zaya_jax.rl.config import PipelineConfig, RlConfig
from zaya_jax.rl.gathering import Asking
from zaya_jax.rl.generation import Decoding
from zaya_jax.rl.pipelined import _take
from zaya_jax.rl.sampler import Sampler, again
from zaya_jax.rl.scheduling import Schedule, Source
from zaya_jax.sampling.request import Completion, Delta

STEP, VERIFY = 0.004, 0.02  # seconds
GROUPS, UPDATES = 2, 12


class ScriptedEngine:
    """Slots, each of which draws a token a step; an answer has four. It says when it worked."""

    def __init__(self, slots=8):
        self.slots, self.version = slots, 0
        self._queue, self._rows, self.worked = [], [], []

    @property
    def waiting(self):
        return len(self._queue)

    @property
    def busy(self):
        return bool(self._queue or self._rows)

    def submit(self, request):
        self._queue.append(request)

    def update_weights(self, variables, version):
        self.version = version

    def step(self):
        while self._queue and len(self._rows) < self.slots:
            self._rows.append((self._queue.pop(0), []))
        start = time.monotonic()
        time.sleep(STEP)
        self.worked.append((start, time.monotonic()))
        for _, versions in self._rows:
            versions.append(self.version)
        ended = [row for row in self._rows if len(row[1]) == 4]
        self._rows = [row for row in self._rows if len(row[1]) < 4]
        return [
            Delta(request.id, 0, *[np.zeros(1)] * 3, completion=_completion(*row))
            for row in ended
            for request in row[:1]
        ]


def _completion(request, versions):
    end = request.think_ids[1]
    tokens = np.array([100, end, 101 + int(request.id.split("/")[1]) % 2, 102], np.int32)
    routes = np.zeros((1, len(request.tokens) + 3), np.int8)
    zeros = np.zeros(4, np.float32)
    return Completion(request.id, tokens, zeros, zeros, routes, "stop", np.array(versions, np.int32), think_end=1)


class SleepingWorkers:
    """Verdicts that take their time; every other answer of a group is right."""

    def __init__(self):
        self.pool, self.asleep = ThreadPoolExecutor(8), []

    def generate(self, environment, seed, difficulty):
        future = Future()
        future.set_result(Problem(f"{seed}", "q", {"kind": "x"}))
        return future

    def verify(self, environment, problem, response):
        def slowly():
            start = time.monotonic()
            time.sleep(VERIFY)
            self.asleep.append((start, time.monotonic()))
            right = response == tokenizer().decode([101, 102])
            return Verdict(float(right), right, True)

        return self.pool.submit(slowly)


@pytest.fixture
def asking():
    decoding = Decoding(group_size=4, thinking_budget=8, answer_budget=4, slots=8, prompt_budget=64)
    config = RlConfig("x", "x", Schedule((Source("scripted"),)), decoding, groups=GROUPS, pipeline=PipelineConfig())
    return Asking(config, ScriptedEngine(), tokenizer(), SleepingWorkers(), Failures())


def overlap(a, b):
    """Seconds that intervals of both lists share."""
    return sum(max(0.0, min(y, t) - max(x, s)) for x, y in a for s, t in b)


def learn(asking, buffer, sampler, updates=UPDATES, seconds=0.03):
    """A learner that sleeps; returns the staleness of every group and when it worked."""
    stale, worked = [], []
    for version in range(updates):
        groups = buffer.take(GROUPS, version, timeout=20)
        assert groups is not None and sampler.error is None, sampler.error
        stale += [version - oldest_version(one) for one in groups]
        start = time.monotonic()
        time.sleep(seconds)
        worked.append((start, time.monotonic()))
        if (version + 1) % 2 == 0:
            sampler.post(None, version + 1)
    return stale, worked


def test_sampling_verifying_and_learning_overlap_and_nothing_is_too_old(asking):
    progress, noted = completion.start(asking.config.schedule), []
    buffer = Buffer(16, staleness=2)
    with Sampler(asking, progress, buffer, lambda scored, version: noted.append((scored, version))) as sampler:
        start = time.monotonic()
        stale, learning = learn(asking, buffer, sampler)
        whole = time.monotonic() - start
    drawing, verifying = asking.engine.worked, asking.workers.asleep
    assert max(stale) <= 2 and min(stale) >= 0
    assert overlap(drawing, learning) > 0.5 * sum(t - s for s, t in learning), (
        "the engine draws while the learner learns"
    )
    assert overlap(drawing, verifying) > 0.5 * whole, "and while answers are verified"
    versions = {int(v) for scored, _ in noted for one in scored.answered.rollouts for v in one.versions}
    assert versions >= {0, 2, 4}, "weights arrive in flight"
    mixed = [one for scored, _ in noted for one in scored.answered.rollouts if len(set(one.versions.tolist())) > 1]
    assert mixed, "an answer may be drawn by two of them, and each token says by which"


class PatientWorkers(SleepingWorkers):
    """Verdicts that come only after the engine has gone on by so many steps."""

    STEPS = 3

    def __init__(self, engine):
        super().__init__()
        self.engine, self.waited, self.over = engine, [], threading.Event()

    def verify(self, environment, problem, response):
        return self.pool.submit(self._patiently, response)

    def _patiently(self, response):
        self.waited.append(self.wait())
        right = response == tokenizer().decode([101, 102])
        return Verdict(float(right), right, True)

    def wait(self):
        """Whether the engine has gone on; it has 10 seconds, a thousand times what it needs."""
        begun, deadline = len(self.engine.worked), time.monotonic() + 10
        while not self.over.is_set() and time.monotonic() < deadline:
            if len(self.engine.worked) >= begun + self.STEPS:
                return True
            time.sleep(0.001)
        return self.over.is_set()


def test_verdicts_and_updates_may_wait_for_the_engine(asking):
    """The proof without a clock that neither holds the engine up: if it waited for them, all would wait for ever."""
    workers, updates, stale = PatientWorkers(asking.engine), 4, []
    asking, buffer = dataclasses.replace(asking, workers=workers), Buffer(16, staleness=2)
    with Sampler(asking, completion.start(asking.config.schedule), buffer, lambda *_: None) as sampler:
        for version in range(updates):
            groups = buffer.take(GROUPS, version, timeout=60)
            stale += [version - oldest_version(one) for one in groups]
            assert all(workers.waited), "the engine draws while answers are verified"
            assert workers.wait(), "and while the learner learns"
            sampler.post(None, version + 1)
        workers.over.set()
    assert len(workers.waited) >= 4 * GROUPS * updates
    assert max(stale) <= 2


def test_what_is_too_old_is_dropped_and_the_oldest_leaves_first(asking):
    buffer = Buffer(3, staleness=1)
    with Sampler(asking, completion.start(asking.config.schedule), buffer, lambda *_: None) as sampler:
        deadline = time.monotonic() + 20
        gone = []
        while len(gone) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
            gone += buffer.take_gone()
        held = [one.answered.asked.number for one in buffer.groups()]
        assert len(held) <= 3 and held == sorted(held)
        assert len(gone) >= 2 and all(reason == "evicted" and number < held[0] for number, reason in gone)
        assert buffer.take(1, version=5, timeout=0.05) is None, "all were drawn by version 0"
        assert "stale" in {reason for _, reason in buffer.take_gone()}
        sampler.post(None, 5)
        found = buffer.take(2, version=5, timeout=20)
        assert all(5 - oldest_version(one) <= 1 for one in found)


def test_what_a_checkpoint_keeps_is_asked_again(asking):
    buffer, progress = Buffer(8, staleness=2), completion.start(asking.config.schedule)
    with Sampler(asking, progress, buffer, lambda *_: None) as sampler:
        while len(buffer) < 2:
            time.sleep(0.005)
        found = sampler.snapshot()
    stored = found.to_json()
    assert [row["seen"] for row in stored][:2] == [True, True] and not all(row["seen"] for row in stored)
    counted = found.progress.schedule.tracks[0].observed
    noted = []
    other = Asking(asking.config, ScriptedEngine(), asking.tokenizer, SleepingWorkers(), Failures())
    again_ = again(other, stored)
    with Sampler(other, found.progress, Buffer(64, 2), lambda scored, _: noted.append(scored), again_) as sampler:
        while len(noted) < len(stored):
            time.sleep(0.005)
        later = sampler.snapshot().progress
    first = [one.answered.asked.number for one in noted][: len(stored)]
    assert sorted(first) == sorted(row["number"] for row in stored), "those that were lost come before any other"
    unseen = sum(not row["seen"] for row in stored)
    assert later.schedule.tracks[0].observed >= counted + unseen
    assert later.schedule.tracks[0].observed <= counted + len(noted) + 8 - sum(row["seen"] for row in stored)


def test_what_the_sampler_raises_ends_the_wait(asking):
    asking.workers.verify = lambda *_: (_ for _ in ()).throw(UserError("broken"))
    buffer = Buffer(8, staleness=2)
    with Sampler(asking, completion.start(asking.config.schedule), buffer, lambda *_: None) as sampler:
        assert buffer.take(1, 0, timeout=20) is None
    assert "broken" in str(sampler.error)
    assert threading.active_count() < 50


def held(number, version=0):
    """A group as the buffer sees it: its number, and which weights drew it."""
    rollout = types.SimpleNamespace(oldest=version)
    return types.SimpleNamespace(
        answered=types.SimpleNamespace(asked=types.SimpleNamespace(number=number), rollouts=(rollout,))
    )


def numbers(groups):
    return [one.answered.asked.number for one in groups]


def test_a_closed_buffer_gives_nothing_that_is_too_old():
    buffer = Buffer(8, staleness=2)
    for number, version in enumerate((0, 0, 3, 3)):
        buffer.put(held(number, version))
    buffer.close()
    assert buffer.take(3, version=4) is None
    assert numbers(buffer.take(2, version=4)) == [2, 3]
    assert buffer.take_gone() == [(0, "stale"), (1, "stale")] and buffer.take_gone() == []


def test_an_update_may_wait_for_more_than_it_takes():
    buffer = Buffer(4, staleness=2)
    for number in range(3):
        buffer.put(held(number))
    assert buffer.take(2, 0, timeout=0.01, waited_for=4) is None
    buffer.put(held(3))
    assert numbers(buffer.take(2, 0, timeout=0.01, waited_for=4)) == [0, 1]
    for number in (4, 5, 6):
        buffer.put(held(number))
    assert buffer.take_gone() == [(2, "evicted")]


def test_what_ended_the_sampler_ends_the_run_though_groups_are_left():
    buffer = Buffer(8, staleness=2)
    for number in range(4):
        buffer.put(held(number))
    buffer.close()
    line = types.SimpleNamespace(sampler=types.SimpleNamespace(error=UserError("fails too often")), buffer=buffer)
    config = types.SimpleNamespace(pipeline=PipelineConfig(buffer=8), groups=2)
    with pytest.raises(UserError, match="fails too often"):
        _take(config, line, 0, threading.Event())


def test_mistakes():
    with pytest.raises(UserError, match=r"sync_every: would wait for ever; expected 3 or less, one more than"):
        PipelineConfig(sync_every=4, staleness=2)
    with pytest.raises(UserError, match=r"pipeline.buffer: too small; expected 32 or more"):
        RlConfig("x", "x", Schedule((Source("s"),)), pipeline=PipelineConfig(buffer=31, batches=2))
    with pytest.raises(UserError, match="buffer capacity: out of range"):
        Buffer(0, 2)
    with pytest.raises(UserError, match=r"pipeline.buffer: too small; expected 16 or more"):
        RlConfig("x", "x", Schedule((Source("s"),)), pipeline=PipelineConfig(buffer=4))
