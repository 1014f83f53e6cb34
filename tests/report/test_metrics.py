"""Metrics files: what is written is read back, whatever happens in between."""

import pathlib
import tempfile

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.report.metrics import MetricsWriter, read_metrics


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "metrics.jsonl"


def test_round_trip_of_numbers_and_arrays(path):
    with MetricsWriter(path) as metrics:
        metrics.write(step=1, loss=jnp.float32(0.5), counts=np.array([[1, 2], [3, 4]], np.int8), name="ä")
        metrics.write(step=np.int64(2), loss=2.25, on=True, nested={"a": (1, jnp.bfloat16(1.5))})
    assert read_metrics(path) == [
        {"step": 1, "loss": 0.5, "counts": [[1, 2], [3, 4]], "name": "ä"},
        {"step": 2, "loss": 2.25, "on": True, "nested": {"a": [1, 1.5]}},
    ]


def test_what_json_cannot_say_is_null(path):
    with MetricsWriter(path) as metrics:
        metrics.write(loss=float("nan"), norms=np.array([1.0, np.inf]))
    assert read_metrics(path) == [{"loss": None, "norms": [1.0, None]}]


def test_a_record_is_readable_as_soon_as_it_is_written(path):
    with MetricsWriter(path) as metrics:
        metrics.write(step=1)
        assert read_metrics(path) == [{"step": 1}]


def test_a_cut_off_last_line_is_left_out(path):
    with MetricsWriter(path) as metrics:
        metrics.write(step=1)
        metrics.write(step=2)
    for cut in range(1, len('{"step": 2}\n') + 1):
        whole = path.read_text()
        path.write_text(whole[:-cut])
        assert read_metrics(path) == [{"step": 1}]
        path.write_text(whole)


def test_an_older_file_is_replaced(path):
    for step in (1, 2):
        with MetricsWriter(path) as metrics:
            metrics.write(step=step)
    assert read_metrics(path) == [{"step": 2}]


@pytest.mark.parametrize(("text", "message"), [('{"a": 1}\n{"a"\n', "line 2: is not JSON"), ("[1]\n", "line 1")])
def test_damage_is_named_by_line(tmp_path, text, message):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_metrics(path)


def test_files_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(UserError, match=r"missing\.jsonl"):
        read_metrics(tmp_path / "missing.jsonl")
    with pytest.raises(UserError, match="cannot be written"):
        MetricsWriter(tmp_path)


def write(path, *steps):
    with MetricsWriter(path) as metrics:
        metrics.write(kind="start", parameters=3)
        for step in steps:
            metrics.write(kind="train", step=step)


def test_a_resumed_run_goes_on_behind_its_step(path):
    write(path, 1, 2, 3, 4)
    with path.open("a") as file:
        file.write('{"kind": "tra')  # killed while it wrote
    with MetricsWriter(path, resume_step=2) as metrics:
        metrics.write(kind="start", parameters=3)
        metrics.write(kind="train", step=3)
    assert [record.get("step") for record in read_metrics(path)] == [None, 1, 2, None, 3]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(0, 9), st.integers(0, 30))
def test_every_step_stands_once_wherever_it_was_cut(steps, resume, cut):
    steps = sorted(set(steps))
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "m.jsonl"
        write(path, *steps)
        whole = path.read_text()
        path.write_text(whole[: len(whole) - cut])
        survived = [record["step"] for record in read_metrics(path) if "step" in record]
        with MetricsWriter(path, resume_step=resume) as metrics:
            for step in range(resume + 1, 12):
                metrics.write(step=step)
        after = [record["step"] for record in read_metrics(path) if "step" in record]
    assert after == [step for step in survived if step <= resume] + list(range(resume + 1, 12))


def test_a_run_without_metrics_can_be_resumed(path):
    with MetricsWriter(path, resume_step=5) as metrics:
        metrics.write(step=6)
    assert read_metrics(path) == [{"step": 6}]


def test_a_damaged_file_is_not_resumed_and_stays(path):
    write(path, 1, 2)
    damaged = path.read_text().replace('"step": 1}', '"step": 1')
    path.write_text(damaged)
    with pytest.raises(UserError, match="line 2: is not JSON"):
        MetricsWriter(path, resume_step=1)
    assert path.read_text() == damaged
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_full_disk_while_cutting_back_loses_nothing(path, monkeypatch):
    write(path, 1, 2)
    before = path.read_text()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(UserError, match="No space left"):
        MetricsWriter(path, resume_step=1)
    assert path.read_text() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_goes_on_behind_a_size_that_it_had(tmp_path):
    """Whatever steps the lines name, and also where the last one was cut off."""
    path = tmp_path / "log.jsonl"
    with MetricsWriter(path) as writer:
        writer.write(step=5, text="é")
        size = writer.size
        writer.write(step=5)
    assert size == len(path.read_bytes().splitlines(keepends=True)[0])
    path.write_bytes(path.read_bytes()[:-3])
    with MetricsWriter(path, resume_step=1, resume_size=size) as writer:
        writer.write(step=2)
    assert read_metrics(path) == [{"step": 5, "text": "é"}, {"step": 2}]
