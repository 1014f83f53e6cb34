"""Progress: lines in a file, a bar on a terminal, by a clock that goes as the test says."""

import fcntl
import io
import os
import pty
import struct
import termios

import pytest

from zaya_jax.report.progress import Progress, describe, duration, eta, mfu, training_figures


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock():
    """`clock()` is the time, `clock.now = t` sets it."""

    def clock():
        return clock.now

    clock.now = 1000.0
    return clock


def test_a_line_every_ten_seconds_and_the_last_one_at_the_end(clock):
    stream = io.StringIO()
    with Progress("train", 90, "s", stream=stream, clock=clock) as progress:
        for second in range(1, 36):
            clock.now = 1000.0 + second
            progress.show(second, loss=2.0)
            if second < 10:
                assert stream.getvalue() == ""
    assert stream.getvalue().splitlines() == [
        f"train   {second} s | {second} of 90 s, loss 2" for second in (10, 20, 30, 35)
    ]


def test_nothing_is_told_twice(clock):
    stream = io.StringIO()
    with Progress("x", 3, stream=stream, clock=clock) as progress:
        clock.now += 10
        progress.show(2)
        progress.close()
    assert stream.getvalue().splitlines() == ["x   10 s | 2 of 3"]


def test_more_than_everything_is_everything(clock):
    stream = io.StringIO()
    with Progress("x", 90, "s", stream=stream, clock=clock) as progress:
        progress.show(90.7)
    assert "90 of 90 s" in stream.getvalue()


def test_a_terminal_has_one_live_line_that_ends_full(clock):
    stream = Terminal()
    with Progress("train", 4, "steps", stream=stream, clock=clock) as progress:
        for step in range(1, 5):
            clock.now += 1
            progress.show(step, tokens_per_s=12345)
    text = stream.getvalue()
    assert text.count("\n") == 1 and text.endswith("\n")
    last = text.split("\r")[-1]
    assert "100%" in last and "4 of 4 steps, tokens/s 12,345" in last
    assert " 25%" in text


@pytest.mark.parametrize(("columns", "width"), [(60, 59), (0, 119)])
def test_the_bar_fits_a_terminal_and_shows_on_one_that_has_no_size(clock, columns, width):
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 0, columns, 0, 0))
    with os.fdopen(leader, "rb", buffering=0) as screen, os.fdopen(follower, "w") as stream:
        with Progress("train", 4, stream=stream, clock=clock) as progress:
            clock.now += 1
            progress.show(2, figure="x" * 200)
        shown = b""
        while not shown.endswith(b"\n"):
            shown += screen.read(10000)
    assert len(shown.decode().rstrip().split("\r")[-1]) == width


def test_words_of_figures():
    figures = {"loss": 2.3456, "tokens_per_s": 9876.5, "step": 12345, "bits_per_byte": "2.3 so far", "held_out": 0.5}
    expected = "3 of 1,000 tokens, loss 2.35, tokens/s 9,876, step 12,345, bits/byte 2.3 so far, held out 0.5"
    assert describe(3, 1000, "tokens", figures) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((10, 100, 20), 180), ((10, 100, 5, 8), 225), ((100, 100, 9), 0), ((110, 100, 9), 0), ((5, 100, 9, 5), None)],
)
def test_eta_is_the_rest_at_the_speed_so_far(arguments, expected):
    assert eta(*arguments) == expected


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (725, "12 min 05 s"), (3600, "1 h 00 min"),
     (12000, "3 h 20 min"), (964800, "11 d 04 h"), (None, "-"), (float("nan"), "-"), (float("inf"), "-")],
)  # fmt: skip
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_mfu_by_hand():
    # 8 devices of 100 FLOP/s can do 800; 20 tokens/s of 10 FLOPs each take 200 of them.
    assert mfu(20, 10, 8, 100) == 0.25
    assert mfu(20, 10, 8, None) is None


def test_what_training_shows():
    figures = training_figures(2.34567, 12345.6, 0.3812, 725)
    assert describe(3, 9, "steps", figures) == "3 of 9 steps, loss 2.3457, tokens/s 12,346, MFU 38.1 %, ETA 12 min 05 s"
    assert training_figures(2, None, None, None) == {"loss": "2.0000", "tokens_per_s": "-", "ETA": "-"}
