"""Whatever an environment does, its call ends, the others go on, and no process is left."""

import concurrent.futures
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from tests.environments import own_environments
from zaya_jax.environments.environment import Problem, Verdict
from zaya_jax.environments.failures import KINDS, Failure
from zaya_jax.environments.workers import WorkerLimits, Workers
from zaya_jax.errors import UserError

OWN = "tests.environments.own_environments"
HOSTILE, SUMS = f"{OWN}:hostile", f"{OWN}:sums"
PROBLEM = Problem("hostile/0", "do", {"seed": 0})
RIGHT = own_environments.RIGHT

# What each misdeed has to give. Three seconds to do it in.
EXPECTED = {
    "right": RIGHT,
    "hang": ("timeout", "no reply within 3 s"),
    "spin": ("timeout", "no reply within 3 s"),
    "regex": ("timeout", "no reply within 3 s"),
    "raise": ("raised", "ValueError: no such luck"),
    "raise worse": ("raised", "Worse:"),
    "recurse": ("raised", "RecursionError"),
    "exit politely": ("raised", "SystemExit: 3"),
    "interrupt": ("raised", "KeyboardInterrupt"),
    "nan": ("reward", "reward is nan"),
    "inf": ("reward", "reward is inf"),
    "text reward": ("reward", "reward is str, not a number"),
    "bool reward": ("reward", "reward is bool, not a number"),
    "own float": Verdict(0.5, False, True),
    "None": ("type", "verify gave NoneType, not a Verdict"),
    "tuple": ("type", "verify gave tuple, not a Verdict"),
    "correct is a number": ("type", "Verdict.correct is int"),
    "answer is a number": ("type", "Verdict.answer is int"),
    "surrogate": Verdict(1.0, True, True, None, "\ud800"),
    "chatter": RIGHT,
    "flood": ("output", "more than 16 MiB"),
    "flood and return": ("output", "more than 16 MiB"),
    "flood by a child": ("output", "more than 16 MiB"),
    "eat": ("memory", "MemoryError"),
    "exit": ("died", "exit code 7"),
    "exit well": ("died", "exit code 0"),
    "exit at the end of bytes": ("died", "exit code 255"),
    "signal": ("died", "signal SIGSEGV"),
    "kill": ("died", "signal SIGKILL"),
    "garbage": ("garbage", "no reply: b'nonsense"),
    "endless": ("garbage", "bytes without an end"),
    "huge": ("garbage", "a reply of "),
    "leave and return": RIGHT,
    "leave and hang": ("timeout", "no reply within 3 s"),
}
# Alone: "deaf" is slow, and who kills the guardian lets go what earlier calls left behind.
ALONE = {"deaf": ("died", "it closed its channel"), "orphan": ("died", "signal SIGKILL")}


def check(misdeed: str, result: object) -> None:
    expected = (EXPECTED | ALONE)[misdeed]
    if isinstance(expected, Verdict):
        assert result == expected
        return
    assert isinstance(result, Failure), result
    assert (result.environment, result.kind) == (HOSTILE, expected[0]) and expected[0] in KINDS
    assert expected[1] in result.detail and "\n" not in result.detail


def processes(token: str) -> list[int]:
    """Those that have the token in their environment; zombies have none."""
    found = []
    for directory in Path("/proc").iterdir():
        try:
            if directory.name.isdigit() and token.encode() in (directory / "environ").read_bytes():
                found.append(int(directory.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


@pytest.fixture
def token(monkeypatch) -> str:
    value = uuid.uuid4().hex
    monkeypatch.setenv("TEST_WORKERS_TOKEN", value)
    return value


@pytest.fixture(scope="module")
def workers():
    with Workers(1, WorkerLimits(seconds=3, memory_mb=300)) as workers:
        yield workers


@pytest.mark.parametrize("misdeed", [*EXPECTED, *ALONE])
def test_every_misdeed_ends_its_own_call_and_the_next_is_answered(workers, misdeed):
    begun = time.monotonic()
    first, second = (workers.verify(HOSTILE, PROBLEM, response) for response in (misdeed, "right"))
    check(misdeed, first.result())
    assert second.result() == RIGHT
    assert time.monotonic() - begun < 20


def test_each_call_has_all_that_a_call_may_print(workers):
    calls = [workers.verify(HOSTILE, PROBLEM, response) for response in ("chatter",) * 4]
    assert [call.result() for call in calls] == [RIGHT] * 4


def test_who_closes_its_output_does_not_slow_the_calls_behind_it():
    """They would wait a second each for what is never counted."""
    with Workers(1, WorkerLimits(seconds=3)) as workers:
        assert workers.verify(HOSTILE, PROBLEM, "mute").result() == RIGHT
        begun = time.monotonic()
        calls = [workers.verify(HOSTILE, PROBLEM, "right") for _ in range(10)]
        assert [call.result() for call in calls] == [RIGHT] * 10
        assert time.monotonic() - begun < 8


def test_an_alarm_that_one_call_sets_does_not_ring_in_the_next(workers):
    calls = [workers.verify(HOSTILE, PROBLEM, response) for response in ("alarm", "nap")]
    assert [call.result() for call in calls] == [RIGHT, RIGHT]


def test_a_worker_that_dies_between_two_calls_is_replaced(token):
    with Workers(1, WorkerLimits(seconds=3)) as workers:
        check("right", workers.verify(HOSTILE, PROBLEM, "right").result())
        for pid in processes(token):
            os.kill(pid, signal.SIGKILL)
        while processes(token):
            time.sleep(0.02)
        check("right", workers.verify(HOSTILE, PROBLEM, "right").result())


@pytest.mark.parametrize(
    ("difficulty", "detail"),
    [
        (1, "generate gave NoneType, not a Problem"),
        (2, "generate gave dict, not a Problem"),
        (3, "generate: no 'id' of a problem"),
        (4, "generate: problem a: not JSON"),
        (5, "generate: problem a: not JSON"),
        (6, "generate: 'NoneType' object is not iterable"),
    ],
)
def test_what_is_no_problem_is_a_failure(workers, difficulty, detail):
    result = workers.generate(HOSTILE, 0, difficulty).result()
    assert (result.environment, result.kind) == (HOSTILE, "type") and detail in result.detail


def test_problems_verdicts_and_explanations_are_those_of_the_environment(workers):
    here = own_environments.sums()
    for seed in range(5):
        problem = workers.generate(SUMS, seed, 3).result()
        assert problem == here.generate(seed, 3)
        reasoning, answer = workers.explain(SUMS, problem).result()
        assert (reasoning, answer) == here.explain(problem)
        for response in (answer, "12", "", "é\n"):
            assert workers.verify(SUMS, problem, response).result() == here.verify(problem, response)
    assert workers.explain(HOSTILE, PROBLEM).result() is None


def test_what_does_not_exist_is_the_callers_mistake_and_the_pool_goes_on(workers):
    with pytest.raises(UserError, match="no 'summs' in tests"):
        workers.generate(f"{OWN}:summs", 0, 0).result()
    assert isinstance(workers.generate(SUMS, 0, 0).result(), Problem)


def test_a_forged_reply_with_nothing_in_it_is_garbage():
    with Workers(1) as workers:
        result = workers.verify(HOSTILE, PROBLEM, "forge").result()
        told = ("bytes behind the reply", "a reply with no result")  # as the true one is there by then, or is not
        assert result.kind == "garbage" and any(part in result.detail for part in told)
        check("right", workers.verify(HOSTILE, PROBLEM, "right").result())


def test_an_environment_that_leaves_while_it_is_made_is_a_failure(workers):
    result = workers.generate(f"{OWN}:leaves", 0, 0).result()
    assert (result.kind, result.detail.partition(" (")[0]) == ("raised", "SystemExit: 4")
    assert isinstance(workers.generate(SUMS, 0, 0).result(), Problem)


def test_two_hundred_mixed_calls_in_three_workers(token):
    quick = [name for name in EXPECTED if name not in ("hang", "spin", "regex", "leave and hang", "endless", "huge")]
    misdeeds = [quick[i % len(quick)] if i % 4 == 0 else "right" for i in range(196)] + ["hang", "spin"] * 2
    random.Random(0).shuffle(misdeeds)
    with Workers(3, WorkerLimits(seconds=3, memory_mb=300)) as workers:
        futures = {workers.verify(HOSTILE, PROBLEM, misdeed): misdeed for misdeed in misdeeds}
        count = 0
        for future in concurrent.futures.as_completed(futures):
            check(futures[future], future.result())
            count += 1
        assert count == 200
        assert processes(token)  # three, or fewer while one is replaced
    assert processes(token) == []


def test_verifying_hides_behind_what_the_caller_does_meanwhile():
    with Workers(2, WorkerLimits(seconds=3)) as workers:
        begun = time.monotonic()
        slow = workers.verify(HOSTILE, PROBLEM, "hang")
        others = [workers.verify(HOSTILE, PROBLEM, "right") for _ in range(20)]
        assert time.monotonic() - begun < 1  # nobody waited
        assert [other.result() for other in others] == [RIGHT] * 20
        assert not slow.done()  # and the slow one keeps nobody
        check("hang", slow.result())


def test_workers_have_no_jax(workers):
    loaded = workers.verify(HOSTILE, PROBLEM, "modules").result().error.split()
    assert "zaya_jax" in loaded and not {"jax", "jaxlib", "flax", "numpy", "torch"} & set(loaded)


def test_the_call_alone_decides_what_a_shared_generator_and_a_set_give():
    def ask(workers):
        return workers.verify(HOSTILE, PROBLEM, "shared chance").result()

    with Workers(1) as one, Workers(1) as other, Workers(1, WorkerLimits(hash_seed=1)) as third:
        first = ask(one)
        one.verify(SUMS, own_environments.SUMS.generate(1, 1), "5").result()
        one.verify(HOSTILE, PROBLEM, "raise").result()
        assert ask(one) == first == ask(other)
        assert ask(third) != first  # the hash seed is what orders sets, so this test can fail


def test_the_end_of_a_pool_cancels_what_is_not_done_and_leaves_no_process(token):
    with Workers(1, WorkerLimits(seconds=100)) as workers:
        check("leave and return", workers.verify(HOSTILE, PROBLEM, "leave and return").result())
        running = workers.verify(HOSTILE, PROBLEM, "leave and hang")
        waiting = workers.verify(HOSTILE, PROBLEM, "right")
        while len(processes(token)) < 8:  # guardian, worker, and three that each call left
            time.sleep(0.02)
        begun = time.monotonic()
    assert processes(token) == [] and time.monotonic() - begun < 10
    for future in (running, waiting):
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(timeout=0)
    with pytest.raises(RuntimeError, match="outside of"):
        workers.generate(SUMS, 0, 0)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_owner_whatever_they_are_doing(token, root, how):
    program = f"""
        import time
        from zaya_jax.environments.environment import Problem
        from zaya_jax.environments.workers import Workers, WorkerLimits
        with Workers(2, WorkerLimits(seconds=600)) as workers:
            for response in ("leave and hang", "spin"):
                workers.verify("{HOSTILE}", Problem("a", "b", {{}}), response)
            time.sleep(600)
    """
    owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], cwd=root)
    try:
        while len(processes(token)) < 8:  # the owner, two guardians, two workers, three that are left
            assert owner.poll() is None
            time.sleep(0.02)
        owner.send_signal(how)
        owner.wait(10)
        deadline = time.monotonic() + 10
        while processes(token) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert processes(token) == []
    finally:
        owner.kill()
        owner.wait()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Workers(0), "Workers.count: not a number of workers; expected 1 or more; found 0"),
        (lambda: Workers(True), "Workers.count: not a number of workers"),
        (lambda: WorkerLimits(seconds=0), "WorkerLimits.seconds: not usable; expected a number from 0.001"),
        (lambda: WorkerLimits(seconds=float("nan")), "WorkerLimits.seconds: not usable"),
        (lambda: WorkerLimits(memory_mb=1.5), "WorkerLimits.memory_mb: not usable; expected a whole number from 64"),
        (lambda: WorkerLimits(hash_seed=-1), "WorkerLimits.hash_seed: not usable"),
    ],
)
def test_limits_that_are_none_are_refused(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)
