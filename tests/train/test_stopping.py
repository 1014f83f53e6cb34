"""Bad steps and spikes, counted by hand."""

import os
import signal

import pytest

from zaya_jax.errors import UserError
from zaya_jax.train.stopping import BadSteps, Spikes, asked_to_stop


def test_only_bad_steps_in_a_row_end_a_run():
    bad = BadSteps(limit=3, total=5)
    for step, applied in enumerate([False, False, True, False, False], 1):
        bad.see(applied)
        bad.check(step)
    assert bad.total == 9
    bad.see(False)
    with pytest.raises(UserError, match="found 3 steps in a row, the last is step 6"):
        bad.check(6)


def test_a_spike_is_far_above_what_was_usual():
    spikes = Spikes(window=5, factor=10)
    assert [spikes.see(loss) for loss in (90.0, 1.0, 2.0, 3.0, 4.0)] == [None] * 5  # nothing is usual yet
    assert spikes.see(13.0) is None  # median 3, distances 0, 1, 1, 2, 87: up to 3 + 10 * 1
    spikes = Spikes(window=5, factor=10)
    for loss in (1.0, 2.0, 3.0, 4.0, 5.0):
        spikes.see(loss)
    assert spikes.see(13.1) == 3.0
    assert spikes.see(0.0) is None


def test_a_signal_asks_and_the_second_ctrl_c_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with asked_to_stop() as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
    assert signal.getsignal(signal.SIGINT) is before
