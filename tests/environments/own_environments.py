"""Environments that tests hand to workers: a sound one, and some that do what environments must not."""

import os
import random
import signal
import subprocess
import sys
import time

from zaya_jax.environments.environment import Environment, Problem, Verdict

RIGHT = Verdict(1.0, True, True, None, "right")
WRONG = Verdict(0.0, False, False, "no answer")


def sums() -> Environment:
    def generate(seed, difficulty):
        chance = random.Random(f"sums {seed} {difficulty}")
        a, b = (chance.randrange(10 ** (difficulty + 1)) for _ in range(2))
        return Problem(f"sums/{difficulty}/{seed}", f"{a}+{b}", {"answer": str(a + b)}, {"difficulty": difficulty})

    def verify(problem, response):
        answer = response.strip()
        correct = answer == problem.hidden["answer"]
        return Verdict(float(correct), correct, answer.isdecimal(), None, answer or None)

    def explain(problem):
        return f"{problem.prompt} = {problem.hidden['answer']}", problem.hidden["answer"]

    return Environment("sums", generate, verify, explain)


SUMS = sums()
NUMBER = 3


def hostile() -> Environment:
    """The response says what its verifier does; the difficulty says what the generator does."""
    return Environment("hostile", _hostile_generate, lambda problem, response: MISDEEDS[response]())


def _hostile_generate(seed, difficulty):
    problem = Problem(f"hostile/{seed}", "do", {"seed": seed})
    if difficulty == 0:
        return problem
    made = [None, problem.to_json(), Problem("", "do", {}), Problem("a", "do", {"x": float("nan")}),
            Problem("a", "do", {"x": {1}}), Problem("a", "do", None)]  # fmt: skip
    return made[difficulty - 1]


def _hang():
    while True:
        time.sleep(1)


def _spin():
    while True:
        pass


def _regex():
    import re

    re.match(r"(a*)*b", "a" * 60)  # never gives the interpreter back


def _raise():
    raise ValueError("no\nsuch luck")


def _raise_worse():
    class Worse(Exception):
        def __str__(self):
            raise RuntimeError

    raise Worse


def _recurse():
    return _recurse()


def _chatter():
    for _ in range(64):
        os.write(1, b"x" * 65536)
        os.write(2, b"x" * 65536)
    print("y" * 100_000)
    return RIGHT


def _flood():
    while True:
        os.write(1, b"x" * 131072)
        os.write(2, b"x" * 131072)


def _flood_and_return():
    """One byte more than a call may print."""
    for _ in range(128):
        os.write(1, b"x" * 131072)
    os.write(1, b"x")
    return RIGHT


def _mute():
    """Closes what it would print to, for all calls after this."""
    for descriptor in (1, 2):
        os.close(descriptor)
    return RIGHT


def _flood_by_a_child():
    subprocess.run(["yes"])  # without an end
    return RIGHT


def _eat():
    kept = []
    while True:
        kept.append(bytearray(1 << 26))


def _garbage():
    for descriptor in _channels():
        os.write(descriptor, b"nonsense\n")
    return RIGHT


def _forge():
    """Says what a worker says, with nothing in it; on a new worker the number is 1."""
    for descriptor in _channels():
        os.write(descriptor, b'{"number": 1, "value": [1]}\n')
    return RIGHT


def _endless():
    for descriptor in _channels():
        os.set_blocking(descriptor, True)
        while True:
            os.write(descriptor, b"z" * 65536)


def _deaf():
    for descriptor in _channels():
        os.close(descriptor)
    _hang()


def _channels():
    return [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2 and _socket(name)]


def _socket(name):
    try:
        return os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    except OSError:
        return False


def _leave(then):
    """Starts processes that mean to stay: in the group, in a session of its own, without a parent."""

    def act():
        sleep = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
        subprocess.Popen(sleep)
        subprocess.Popen(sleep, start_new_session=True)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execv(sys.executable, sleep)
            os._exit(0)
        os.wait()
        return then()

    return act


def _alarm():
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    return RIGHT


def _modules():
    return Verdict(0.0, False, False, " ".join(sorted({name.partition(".")[0] for name in sys.modules})))


def _shared_chance():
    return Verdict(random.random(), False, True, None, " ".join({f"word{i}" for i in range(20)}))


class _Float(float):
    """As a library's own number type may be."""


MISDEEDS = {
    "right": lambda: RIGHT,
    "hang": _hang,
    "spin": _spin,
    "regex": _regex,
    "raise": _raise,
    "raise worse": _raise_worse,
    "recurse": _recurse,
    "exit politely": lambda: sys.exit(3),
    "interrupt": lambda: signal.raise_signal(signal.SIGINT) or _hang(),
    "nan": lambda: Verdict(float("nan"), False, True),
    "inf": lambda: Verdict(float("inf"), True, True),
    "text reward": lambda: Verdict("1", True, True),
    "bool reward": lambda: Verdict(True, True, True),
    "own float": lambda: Verdict(_Float(0.5), False, True),
    "None": lambda: None,
    "tuple": lambda: (1.0, True, True),
    "correct is a number": lambda: Verdict(1.0, 1, True),
    "answer is a number": lambda: Verdict(1.0, True, True, None, 7),
    "surrogate": lambda: Verdict(1.0, True, True, None, "\ud800"),
    "chatter": _chatter,
    "flood": _flood,
    "flood and return": _flood_and_return,
    "mute": _mute,
    "flood by a child": _flood_by_a_child,
    "eat": _eat,
    "exit": lambda: os._exit(7),
    "exit at the end of bytes": lambda: os._exit(255),
    "exit well": lambda: os._exit(0),
    "signal": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "orphan": lambda: os.kill(os.getppid(), signal.SIGKILL) or _hang(),
    "garbage": _garbage,
    "forge": _forge,
    "endless": _endless,
    "deaf": _deaf,
    "huge": lambda: Verdict(1.0, True, True, None, "x" * (65 << 20)),
    "leave and return": _leave(lambda: RIGHT),
    "leave and hang": _leave(_hang),
    "alarm": _alarm,
    "nap": lambda: time.sleep(0.2) or RIGHT,
    "modules": _modules,
    "shared chance": _shared_chance,
}


def hostile_import():
    raise OSError("cannot make it")


def leaves():
    raise SystemExit(4)


def with_argument(size):
    return sums()


def no_environment():
    return {"name": "sums"}


def swapped() -> Environment:
    return Environment("swapped", lambda seed: None, SUMS.verify)


def nameless() -> Environment:
    return Environment(" ", SUMS.generate, SUMS.verify)


def not_functions() -> Environment:
    return Environment("x", SUMS.generate, 3)


def odd() -> Environment:
    """Passes the contract's types and breaks its promises."""

    def generate(seed, difficulty):
        words = list({"ant", "bee", "cat", "dog", "eel", "fox", "gnu"})  # in an order that is the process's own
        return Problem("odd/1", " ".join(words), {"answer": ("x", 1)})

    def verify(problem, response):
        if not response.strip().isascii():
            raise ValueError("not ascii")
        return Verdict(1.0, True, True)

    return Environment("odd", generate, verify, lambda problem: ("because", "x"))
