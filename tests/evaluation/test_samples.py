"""The samples file: kept whatever kills its writer, resumed exactly, and damage named."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.evaluation.made import sample
from zaya_jax.environments.environment import Problem
from zaya_jax.errors import UserError
from zaya_jax.evaluation.samples import SampleWriter, missing, read_samples

PROBLEMS = [Problem(name, "?", {}) for name in ("b", "a", "c")]
WRITER = """
import itertools, sys
from tests.evaluation.made import sample
from zaya_jax.evaluation.samples import SampleWriter
with SampleWriter(sys.argv[1]) as writer:
    for index in itertools.count():
        writer.write(sample(index=index, response="<think>π</think>" + "x" * 20_000))
"""


def written(path, *samples):
    with SampleWriter(path) as writer:
        for one in samples:
            writer.write(one)
    return path


def test_samples_come_back_as_they_were(tmp_path):
    samples = [
        sample(response="<think>∑ \u2028 \ud800</think>\n1", meta={"T": 2, "rounds": [1, 2]}),
        sample(index=1, response="", finish_reason="length"),
    ]
    assert read_samples(written(tmp_path / "new" / "samples.jsonl", *samples)) == samples
    assert samples[1].truncated and not samples[0].truncated


def test_a_file_is_appended_to(tmp_path):
    path = written(tmp_path / "s.jsonl", sample())
    first = path.read_bytes()
    written(path, sample(index=1))
    assert path.read_bytes().startswith(first) and len(read_samples(path)) == 2
    path.write_bytes(b"")
    assert read_samples(path) == []


@pytest.mark.filterwarnings("ignore:.*the last line was cut off")  # it may be, or not
def test_what_was_written_survives_kill_9(tmp_path, root):
    path = tmp_path / "s.jsonl"
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], env=environment) as process:
        while not path.exists() or path.stat().st_size < 2_000_000:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    samples = read_samples(path)
    assert [one.index for one in samples] == list(range(len(samples))) and len(samples) > 90
    written(path, sample(problem="z"))  # the lock went with the process
    assert read_samples(path)[-1].problem == "z"


@pytest.mark.parametrize("cut", [1, 40, 120])
def test_a_line_cut_off_is_dropped_with_a_warning_and_made_again(tmp_path, cut):
    path = written(tmp_path / "s.jsonl", sample("b"), sample("a"), sample("c"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with pytest.warns(UserWarning, match=r"s.jsonl: the last line was cut off and is left out"):
        there = read_samples(path)
    assert [one.problem for one in there] == ["b", "a"] and path.read_bytes() == whole[:-cut]
    assert missing(there, PROBLEMS, 1) == [("c", 0)]
    with pytest.warns(UserWarning, match=r"s.jsonl: the last line was cut off and is taken out"):
        written(path, sample("c"))
    assert path.read_bytes() == whole


def test_the_only_line_cut_off(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'{"benchmark": ' + b"x" * 200_000)
    with pytest.warns(UserWarning, match="cut off"):
        written(path, sample())
    assert read_samples(path) == [sample()]


def test_what_is_missing_is_what_is_not_there(tmp_path):
    there = [
        sample("a", 1), sample("b", 0), sample("b", 0, seed=1), sample("c", 0, method="markovian_rsa"),
        sample("stranger", 0), sample("a", 7),
    ]  # fmt: skip
    assert missing(there, PROBLEMS, 2) == [("b", 1), ("a", 0), ("c", 0), ("c", 1)]
    assert missing(there, PROBLEMS, 1, seed=1) == [("a", 0), ("c", 0)]
    assert missing(there, PROBLEMS, 1, method="markovian_rsa") == [("b", 0), ("a", 0)]
    assert missing(there, PROBLEMS, 0) == []


def test_one_file_has_one_writer(tmp_path):
    with (
        SampleWriter(tmp_path / "s.jsonl"),
        pytest.raises(UserError, match=r"s.jsonl: is being written by another process; give another file"),
    ):
        SampleWriter(tmp_path / "s.jsonl")


ROW = dict(vars(sample()))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"{]", "line 2: is not JSON"),
        (b"[]", "line 2: is not a JSON object"),
        (ROW | {"tokens": 3}, "line 2: unknown key 'tokens'; expected one of benchmark, problem, index"),
        (ROW | {"finish_raeson": "stop"}, "did you mean 'finish_reason'?"),
        (ROW | {"index": -1}, "line 2: no 'index'; expected a whole number from 0 up; found -1"),
        (ROW | {"generated": 1.5}, "line 2: no 'generated'; expected a whole number from 0 up; found 1.5"),
        (ROW | {"seed": True}, "line 2: no 'seed'; expected a whole number from 0 up; found True"),
        (ROW | {"problem": 3}, "line 2: no 'problem'; expected a text that is not empty; found 3"),
        (ROW | {"response": None}, "line 2: no 'response'; expected a text, which may be empty; found None"),
        (ROW | {"meta": []}, "line 2: meta is not an object; found []"),
        (ROW, "line 2: the sample is there twice; found it is in line 1 too; take one of them out"),
    ],
)
def test_damage_inside_a_file_is_named(tmp_path, row, message):
    path = written(tmp_path / "s.jsonl", sample())
    with path.open("ab") as stream:
        stream.write((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n")
    with pytest.raises(UserError) as caught:
        read_samples(path)
    assert str(caught.value).startswith(f"{path}, line 2") and message in str(caught.value)


def test_a_file_that_is_not_there_or_cannot_be(tmp_path):
    with pytest.raises(UserError, match="cannot be read; found No such file"):
        read_samples(tmp_path / "s.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written; found "):
        SampleWriter(tmp_path / "file" / "s.jsonl")
