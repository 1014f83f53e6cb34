"""The quickstart, end to end: a tiny model, two steps."""

import dataclasses
import functools
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import zaya_jax
from tests.experiments.in_process import run as launcher
from tests.model.helpers import quick_jit
from tests.train.models import tiny
from zaya_jax.data.python_docs import hold_out, python_topics
from zaya_jax.errors import UserError
from zaya_jax.report.metrics import read_metrics
from zaya_jax.text.byte_level import BOS_ID, BYTE_VOCAB_SIZE, FIRST_BYTE_ID, IM_END_ID
from zaya_jax.train import quickstart
from zaya_jax.train.exporting import BYTES, open_tokenizer
from zaya_jax.train.loop import Budget
from zaya_jax.train.quickstart import Quickstart

MODEL_FILES = {
    *("config.json", "generation_config.json", "model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
}
OUTPUT_FILES = {"model", "metrics.jsonl", "loss.png", "validation.npy"}
LENGTH = 64


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return Quickstart(
        output=tmp_path_factory.mktemp("quickstart") / "out",
        budget=Budget(steps=2),
        prompt="A class ",
        new_tokens=5,
        model=tiny(vocab_size=BYTE_VOCAB_SIZE),
        rows=32,
        length=LENGTH,
    )


@pytest.fixture(scope="module")
def done(job):
    """What a run returned and said."""
    sink = io.StringIO()
    return quickstart.run(job, sink), sink.getvalue()


def names(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir()}


def held_out_documents():
    return [text.encode() for text in hold_out(python_topics())[1].values()]


def test_everything_is_written(job, done):
    pytest.importorskip("matplotlib")
    assert names(job.output) == OUTPUT_FILES
    assert names(job.output / "model") == MODEL_FILES
    assert (job.output / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_metrics_have_a_record_a_step(job, done):
    records = read_metrics(job.output / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 2]
    assert records[0]["loss"] == pytest.approx(np.log(BYTE_VOCAB_SIZE), rel=0.1)
    assert all(np.sum(record["router_counts"], axis=1).tolist() == [32 * LENGTH] * 2 for record in records)


def test_validation_tokens_are_bytes_of_held_out_pages(job, done):
    rows = np.load(job.output / "validation.npy")
    assert rows.dtype == np.int32 and rows.shape[1] == LENGTH
    pages = [[BOS_ID, *(byte + FIRST_BYTE_ID for byte in page), IM_END_ID] for page in held_out_documents()]
    assert rows.tolist() == [
        page[start : start + LENGTH] for page in pages for start in range(0, len(page) - LENGTH + 1, LENGTH)
    ]


def test_loaded_model_gives_the_score_that_was_told(job, done):
    # Windows, loss and layout anew: rows begin every half a window, and all but the first count their second half.
    model, variables, _ = zaya_jax.load(job.output / "model", dtype="float32", layout="unstacked")
    pages = [[BOS_ID, *(byte + FIRST_BYTE_ID for byte in page), IM_END_ID] for page in held_out_documents()]
    tokens = np.concatenate(pages)
    page_of = np.repeat(np.arange(len(pages)), [len(page) for page in pages])
    starts = range(0, len(tokens) - 1 - LENGTH // 2, LENGTH // 2)
    nats = 0.0
    for start in starts:
        logits = _window_logits(model, variables, tokens[start : start + LENGTH], page_of[start : start + LENGTH])
        first = LENGTH // 2 if start else 0
        for column in range(first, len(logits)):
            place = start + column + 1
            if place < len(tokens) and page_of[place] == page_of[place - 1]:
                nats -= logits[column, tokens[place]] - _logsumexp(logits[column])
    bits = nats / np.log(2) / sum(map(len, held_out_documents()))
    assert done[0]["this model"] == pytest.approx(bits, rel=1e-5)
    assert f"{bits:.4f} bits per byte" in done[1]


def _logsumexp(x):
    x = x.astype(np.float64)
    return np.log(np.exp(x - x.max()).sum()) + x.max()


def _window_logits(model, variables, tokens, page):
    """[T, V] of one window, every document from position 0."""
    padded, segments, positions = np.zeros((3, 1, LENGTH), np.int32)
    n = len(tokens)
    padded[0, :n] = tokens
    segments[0, :n] = page + 1
    positions[0, :n] = np.arange(n) - np.searchsorted(page, page)
    return np.asarray(_apply(model, variables, padded, positions, segments))[0, :n]


@functools.partial(quick_jit, static_argnums=0)
def _apply(model, variables, tokens, positions, segments):
    return model.apply(variables, tokens, positions, segments).logits


def test_what_is_told_has_every_baseline_and_the_sample(job, done):
    bits, told = done
    for name, value in bits.items():
        assert re.search(rf"^ *{re.escape(name)} +{value:.2f} ", told, re.MULTILINE), name
    assert bits["zlib"] < bits["byte frequencies"] < bits["this model"] < 9
    assert "\nA class " in told


def test_told_commands_are_launchers_with_such_flags(root, done):
    commands = re.findall(r"-m experiments\.(\w+) (.*)", done[1])
    assert [name for name, _ in commands] == ["generate", "inspect", "score", "chat"]
    for name, rest in commands:
        source = (root / "experiments" / f"{name}.py").read_text()
        for flag in shlex.split(rest):
            assert f'"{flag.split("=")[0].removeprefix("--")}"' in source


@pytest.mark.slow
def test_told_commands_work(root, done):
    for line in re.findall(r"\S+ -m experiments\..*", done[1]):
        command = [sys.executable, *shlex.split(line)[1:]]
        finished = subprocess.run(command, cwd=root, capture_output=True, text=True, input="")
        assert finished.returncode == 0, finished.stderr


def test_a_model_that_scores_otherwise_is_not_passed_over(job, done):
    tokenizer, _ = open_tokenizer(BYTES)
    corpus = quickstart.make_corpus(*hold_out(python_topics()), tokenizer.encode)
    told = done[0]["this model"]
    assert quickstart.check_export(job, corpus, told) == pytest.approx(told, abs=1e-6)
    with pytest.raises(RuntimeError, match="exported model"):
        quickstart.check_export(job, corpus, told + 1e-3)


def test_running_again_replaces_the_results(job, done):
    before = {file: file.read_bytes() for file in job.output.rglob("*") if file.is_file()}
    (job.output / ".loss.png.tmp").write_text("left by a killed run")
    again = quickstart.run(dataclasses.replace(job, seed=1), io.StringIO())
    assert again["this model"] != done[0]["this model"]
    (job.output / ".loss.png.tmp").unlink(missing_ok=True)
    after = {file: file.read_bytes() for file in job.output.rglob("*") if file.is_file()}
    assert after.keys() == before.keys()
    changed = {file.name for file in after if after[file] != before[file]}
    assert changed == {"model.safetensors", "metrics.jsonl", *({"loss.png"} if "matplotlib" in sys.modules else ())}


def test_missing_matplotlib_is_a_note(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    history = quickstart.History(tokens=8)
    history.seconds, history.bits = [1.0, 2.0], [8.0, 7.0]
    history.entropy_L, history.looks = [np.ones(2)] * 2, [(1.0, 8.0)]
    told = quickstart.report.draw(tmp_path / "loss.png", {"this model": 7.0, "zlib": 2.5}, history)
    assert "pip install matplotlib" in told.split("\n")[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("foreign", ["thesis.tex", "model/thesis.tex", "model/.hidden"])
def test_foreign_files_are_refused_before_anything_is_touched(job, tmp_path, foreign):
    for name in (foreign, "model/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=re.escape(foreign)) as caught:
        quickstart.run(dataclasses.replace(job, output=tmp_path), io.StringIO())
    assert "\n" not in str(caught.value)
    assert {file.read_text() for file in tmp_path.rglob("*") if file.is_file()} == {"mine"}
    assert names(tmp_path) == {Path(foreign).parts[0], "model"}


def test_an_output_that_is_a_file_is_refused(job, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="out: cannot be used"):
        quickstart.run(dataclasses.replace(job, output=tmp_path / "out"), io.StringIO())
    assert (tmp_path / "out").read_text() == "mine"


def test_a_sample_that_does_not_fit_is_refused_at_once(job, tmp_path):
    with pytest.raises(UserError, match="context"):
        quickstart.run(dataclasses.replace(job, output=tmp_path / "new", new_tokens=5000), io.StringIO())
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("flag", ["--seconds=-1", "--steps=0", "--new_tokens=5000", "--output=README.md"])
def test_launcher_ends_a_mistake_in_one_line(flag, tmp_workdir):
    (tmp_workdir / "README.md").write_text("mine")
    code, out, err = launcher("quickstart", flag)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert names(tmp_workdir) == {"README.md"}
