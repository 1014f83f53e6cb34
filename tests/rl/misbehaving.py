"""Environments whose verifiers do what they must not, and one whose rewards turn into something else."""

import os
import time

from tests.rl import easy
from zaya_jax.environments.environment import Environment, Verdict


def _environment(name, misdeed):
    def verify(problem, response):
        misdeed()
        return easy.verify(problem, response)

    return Environment(name, easy.generate, verify)


def _hang():
    time.sleep(600)


def _raise():
    raise ValueError("no such luck")


def _chatter():
    os.write(1, b"x" * 65536)


def _flood():
    for _ in range(400):
        os.write(1, b"x" * 65536)


def _eat():
    kept = []
    while True:
        kept.append(bytearray(1 << 26))


HANG, RAISE = _environment("hang", _hang), _environment("raise", _raise)
CHATTER = _environment("chatter", _chatter)
FLOOD, EAT = _environment("flood", _flood), _environment("eat", _eat)
NAN = Environment("nan", easy.generate, lambda problem, response: Verdict(float("nan"), True, True))
NEVER = Environment("never", easy.generate, lambda problem, response: Verdict(0.0, False, True))

_LAST_SEED = 2**62  # of training; looks have those above
_calls = 0


def _turn(problem, response):
    """Right ever more often, of problems that are learnt from; ever less, of those that are held out."""
    global _calls
    training = int(problem.id.rsplit("/", 1)[1]) < _LAST_SEED
    _calls += training
    share = min(_calls / 24, 1.0)
    right = len(response) % 4 < 4 * share if training else _calls < 12
    return Verdict(float(right), right, True)


TURN = Environment("turn", easy.generate, _turn)
