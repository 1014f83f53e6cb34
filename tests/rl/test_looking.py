"""Looks at held-out problems in the pipeline: of one version of the weights, beside training, which loses nothing."""

import dataclasses
import threading
import time

import numpy as np
import pytest

from tests.rl.test_sampler import ScriptedEngine, SleepingWorkers
from tests.sampling.models import tokenizer
from zaya_jax.environments.environment import Problem
from zaya_jax.environments.failures import Failures
from zaya_jax.errors import UserError
from zaya_jax.rl import completion
from zaya_jax.rl.buffer import Buffer
from zaya_jax.rl.config import HeldOutConfig, PipelineConfig, RlConfig
from zaya_jax.rl.gathering import Asking
from zaya_jax.rl.generation import Asked, Decoding, prompt_of
from zaya_jax.rl.sampler import Sampler
from zaya_jax.rl.scheduling import Schedule, Source

PROBLEMS, ANSWERS = 6, 3


@pytest.fixture
def asking():
    decoding = Decoding(group_size=4, thinking_budget=8, answer_budget=4, slots=8, prompt_budget=64)
    config = RlConfig("x", "x", Schedule((Source("scripted"),)), decoding, groups=2, pipeline=PipelineConfig())
    config = dataclasses.replace(config, held_out=HeldOutConfig(every=1, answers=ANSWERS))
    return Asking(config, ScriptedEngine(), tokenizer(), SleepingWorkers(), Failures())


@pytest.fixture
def problems():
    made = [Problem(f"held out {i}", f"q{i}", {"kind": "x"}) for i in range(PROBLEMS)]
    return [Asked(i, "scripted", 0, one, prompt_of(tokenizer(), one)) for i, one in enumerate(made)]


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_look_is_of_the_weights_it_was_asked_with(asking, problems):
    """Others arrive in the middle of it and wait."""
    verify, events = asking.workers.verify, []

    def verify_and_post(environment, problem, response):
        if problem.id.startswith("held out"):
            if not events:
                sampler.post(None, 9)
            events.append("look")
        return verify(environment, problem, response)

    def generate(*arguments):
        events.append("ask")
        return SleepingWorkers.generate(asking.workers, *arguments)

    noted, buffer = [], Buffer(64, staleness=9)
    asking.workers.verify = verify_and_post
    progress = completion.start(asking.config.schedule)
    with Sampler(asking, progress, buffer, lambda scored, _: noted.append(scored)) as sampler:
        sampler.post(None, 4)
        until(lambda: len(noted) >= 2)
        asking.workers.generate = generate
        found = sampler.look(problems, None, 5)
        until(lambda: asking.engine.version == 9)
        counted = len(noted)
        until(lambda: len(noted) > counted)
        kept = sampler.snapshot()

    assert [one.asked.problem.id for one in found] == [f"held out {i}" for i in range(PROBLEMS)]
    assert all(len(one.rollouts) == ANSWERS for one in found)
    assert {int(v) for one in found for each in one.rollouts for v in each.versions} == {5}
    looked = [place for place, event in enumerate(events) if event == "look"]
    assert len(looked) == PROBLEMS * ANSWERS
    assert "ask" not in events[looked[0] : looked[-1]], "nothing new is asked while a look is under way"

    trained = [one.answered.asked for one in noted]
    assert not any(one.problem.id.startswith("held out") for one in trained)
    numbers = sorted({one.number for one in trained} | {one.number for one in kept.asked})
    assert numbers == list(range(len(numbers))), "what was under way has been answered, none is lost"
    versions = [set(map(int, each.versions)) for one in noted for each in one.answered.rollouts]
    assert any({4, 5} <= own for own in versions), "training goes on beside it, with the same weights"


def test_the_same_noise_at_every_look(asking, problems):
    seeds, submit = [], asking.engine.submit

    def remember(request):
        seeds.append((request.id, request.seed))
        submit(request)

    asking.engine.submit = remember
    with Sampler(asking, completion.start(asking.config.schedule), Buffer(64, 9), lambda *_: None) as sampler:
        for version in (1, 2):
            sampler.look(problems, None, version)
    looks = [one for one in seeds if one[0].startswith("look ")]
    half = len(looks) // 2
    assert looks[:half] == looks[half:] and len(set(looks)) == half == PROBLEMS * ANSWERS
    assert not {seed for _, seed in looks} & {seed for name, seed in seeds if not name.startswith("look ")}


def test_who_waits_for_a_look_is_told_what_has_ended_the_sampler(asking, problems):
    asking.workers.verify = lambda *_: (_ for _ in ()).throw(UserError("broken"))
    with Sampler(asking, completion.start(asking.config.schedule), Buffer(64, 9), lambda *_: None) as sampler:
        with pytest.raises(UserError, match="broken"):
            sampler.look(problems, None, 1)
        with pytest.raises(UserError, match="broken"):
            sampler.look(problems, None, 2)
    assert sampler.error is not None and threading.active_count() < 50


def test_a_snapshot_is_taken_between_two_groups(asking):
    """What is noted before the mark is in it, what is noted behind is not, and failures are counted alike."""
    noted, marks = [], []
    progress = completion.start(asking.config.schedule)
    with Sampler(asking, progress, Buffer(64, 9), lambda scored, _: noted.append(scored)) as sampler:
        found = []
        for _ in range(60):
            found.append(sampler.snapshot(lambda: marks.append(len(noted))))
            time.sleep(0.002)
    assert marks[-1] > marks[0]
    for one, mark in zip(found, marks, strict=True):
        assert one.progress.schedule.tracks[0].observed == mark
        calls = one.failures.get("scripted", {"counts": {"calls": 0}})["counts"]["calls"]
        assert calls == 4 * mark + mark + sum(not seen for seen in one.seen), "verdicts, and problems that were made"
    assert np.all(np.diff(marks) >= 0)
