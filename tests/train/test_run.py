"""A whole training run on a tiny model: what it leaves behind, and that being killed costs nothing."""

import dataclasses
import io
import json
import math
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import zaya_jax
from tests.experiments.launching import launch
from tests.model.helpers import quick_jit
from tests.train.tiny_run import tiny_run
from zaya_jax.data.ngram import ngram_bits
from zaya_jax.errors import UserError
from zaya_jax.report.metrics import plain, read_metrics
from zaya_jax.train.run import Options, run
from zaya_jax.train.settings import from_dict, to_dict

TEXT = "".join(f"line {i}: {i * i} is the square of {i}\n" for i in range(400))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "squares.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory):
    """The directory of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("run") / "whole"
    assert run(tiny_run(text), workdir, sink=io.StringIO())
    return workdir


def records(workdir, kind):
    return [record for record in read_metrics(workdir / "metrics.jsonl") if record["kind"] == kind]


def losses(workdir):
    return {record["step"]: record["loss"] for record in records(workdir, "train")}


def examples(workdir):
    return (workdir / "examples.jsonl").read_text()


def test_every_step_is_on_record_and_the_loss_falls(finished):
    curve = losses(finished)
    assert list(curve) == list(range(1, 41))
    assert curve[1] == pytest.approx(math.log(272), rel=0.2)
    assert curve[40] < 0.8 * curve[1]
    assert [json.loads(line)["step"] for line in examples(finished).splitlines()] == list(range(1, 41))
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["36", "39", "40"]


def test_the_load_of_twenty_steps_is_on_record(finished):
    """The counts of a step are not; that of the first step alone is both figures."""
    first, *_, last = records(finished, "train")
    np.testing.assert_allclose(first["recent_load_entropy"], first["load_entropy"], rtol=1e-5)
    steps = [record["load_entropy"] for record in records(finished, "train")[-20:]]
    assert (np.array(last["recent_load_entropy"]) >= np.mean(steps, axis=0) - 1e-6).all()  # entropy is concave


def test_the_last_look_is_what_the_exported_model_scores(finished):
    """Every byte but the documents' first tokens, paid for once; the model is read back from the hub's format."""
    (look,) = records(finished, "eval")
    model, variables, tokenizer = zaya_jax.load(finished / "model", dtype="float32", layout="stacked")
    tokens = np.asarray(tokenizer.encode(TEXT), np.int32)
    nats = 0.0
    apply = quick_jit(lambda *arguments: model.apply(variables, *arguments).logits)
    for start in range(0, len(tokens) - 1, 31):
        piece = np.zeros((1, 32), np.int32)
        real = tokens[start : start + 32]
        piece[0, : len(real)] = real
        segments = (np.arange(32) < len(real)).astype(np.int32)[None]
        logits = np.asarray(apply(piece, np.arange(32)[None] * segments, segments), np.float64)[0]
        chosen = logits[np.arange(len(real) - 1), real[1:]]
        nats += float(np.sum(np.log(np.exp(logits).sum(axis=1))[: len(real) - 1] - chosen))
    assert look["loss"] == pytest.approx(nats / (len(tokens) - 1), rel=1e-4)
    assert look["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(TEXT), rel=1e-4)


def test_ngrams_of_the_same_text_are_on_record(text, tmp_path):
    evaluation = dataclasses.replace(tiny_run(text).evaluation, ngram=3)
    assert run(tiny_run(text, steps=2, evaluation=evaluation), tmp_path / "run", sink=io.StringIO())
    (found,) = records(tmp_path / "run", "baseline")
    bits = ngram_bits([TEXT.encode()], [TEXT.encode()], 3)
    assert found == {"kind": "baseline", "step": 2, "name": "again", "order": 3, "bits_per_byte": pytest.approx(bits)}


def test_a_few_steps_are_profiled(text, tmp_path):
    assert run(tiny_run(text, steps=7), tmp_path / "run", Options(profile=2), io.StringIO())
    assert len(list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))) == 1


def test_metrics_go_to_other_sinks_too(text, tmp_path, monkeypatch):
    class Kept(list):
        def write(self, **values):
            self.append(json.loads(json.dumps(plain(values))))

        def close(self):
            self.append("closed")

    kept = Kept()
    monkeypatch.setattr("zaya_jax.train.run.sinks", lambda *_: [kept])
    assert run(tiny_run(text, steps=3), tmp_path / "run", sink=io.StringIO())
    assert kept == [*read_metrics(tmp_path / "run" / "metrics.jsonl"), "closed"]
    with pytest.raises(UserError, match="paper: unknown sink; expected tensorboard or wandb"):
        run(tiny_run(text, steps=7), tmp_path / "other", Options(sinks=("paper",)), io.StringIO())
    assert not (tmp_path / "other").exists()


def killed_run(text, workdir, root, kills, seed, seconds=(0.2, 3.0)):
    """Starts the launcher again and again, and kills it (-9) at random moments once it is at work; then lets it end."""
    chooser = random.Random(seed)
    command = [sys.executable, "-m", "experiments.train", f"--config=tests/train/tiny_run.py:{text}"]
    command += [f"--workdir={workdir}"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    for number in range(kills + 1):
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if number < kills:
            before = len(examples(workdir)) if (workdir / "examples.jsonl").exists() else -1
            while process.poll() is None and _length(workdir) <= max(before, 0):
                time.sleep(0.01)
            time.sleep(chooser.uniform(*seconds))
            process.kill()
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()


def _length(workdir):
    path = workdir / "examples.jsonl"
    return path.stat().st_size if path.exists() else 0


def assert_same(one, other):
    assert losses(one) == losses(other)
    assert examples(one) == examples(other)
    ours, theirs = ((path / "model" / "model.safetensors").read_bytes() for path in (one, other))
    assert ours == theirs


def test_kill_9_costs_nothing(text, finished, root, tmp_path):
    """The same losses, examples and weights, to the bit."""
    killed_run(text, tmp_path / "run", root, kills=3, seed=0, seconds=(0.0, 0.3))
    assert_same(finished, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_twenty_kills_cost_nothing(text, finished, root, tmp_path, seed):
    killed_run(text, tmp_path / "run", root, kills=5, seed=seed + 1, seconds=(0.0, 0.5))
    assert_same(finished, tmp_path / "run")


def test_sigterm_ends_a_run_with_a_checkpoint(text, finished, root, tmp_path):
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "experiments.train", f"--config=tests/train/tiny_run.py:{text}"]
    process = subprocess.Popen(
        [*command, f"--workdir={workdir}", "--config.checkpoints.every=1000"],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and _length(workdir) == 0:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "stopped after step" in out
    assert run(tiny_run(text), workdir, sink=io.StringIO())
    assert losses(workdir) == losses(finished)


def test_any_checkpoint_can_be_exported(finished, tmp_path):
    """The newest is the model that the run exported itself; an older one is another."""
    assert launch("export", f"--workdir={finished}", f"--output={tmp_path / 'last'}")[:2] == (
        0,
        f"the model after step 40 is in {tmp_path / 'last'}\n",
    )
    ours, theirs = (path / "model.safetensors" for path in (tmp_path / "last", finished / "model"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert launch("export", f"--workdir={finished}", f"--output={tmp_path / 'older'}", "--step=36")[0] == 0
    assert (tmp_path / "older" / "model.safetensors").read_bytes() != theirs.read_bytes()
    code, _, error = launch("export", f"--workdir={finished}", f"--output={tmp_path / 'none'}", "--step=35")
    assert (code, error.count("\n")) == (2, 1)
    assert "there is no such checkpoint; expected one of 36, 39, 40; found 35" in error
    code, _, error = launch("export", f"--workdir={tmp_path}", f"--output={tmp_path / 'none'}")
    assert code == 2 and "is not a run's directory" in error


def test_the_wall_clock_ends_a_run_with_a_checkpoint(text, finished, tmp_path):
    config, said = tiny_run(text, seconds=1e-9), io.StringIO()
    assert not run(config, tmp_path / "run", sink=said)
    assert "stopped after step 1 of 40" in said.getvalue()
    assert run(dataclasses.replace(config, seconds=0.0), tmp_path / "run", sink=said)
    assert losses(tmp_path / "run") == losses(finished)


def test_a_directory_of_another_run_is_refused_and_the_difference_shown(text, finished):
    other = tiny_run(text, rows=3)
    with pytest.raises(UserError, match=r"the directory of another run; found rows: 2 -> 3; choose another --workdir"):
        run(other, finished, sink=io.StringIO())
    assert losses(finished)[40] > 0


def test_other_data_behind_the_same_configuration_are_refused(text, finished, tmp_path):
    config = tiny_run(text, steps=3)
    assert run(config, tmp_path / "run", sink=io.StringIO())
    copy = tmp_path / "squares.txt"
    copy.write_text(TEXT)
    config = tiny_run(copy, steps=3)
    assert run(config, tmp_path / "other", sink=io.StringIO())
    copy.write_text(TEXT.replace("square", "SQUARE"))
    with pytest.raises(UserError, match="data"):
        run(config, tmp_path / "other", sink=io.StringIO())


def test_a_loss_that_is_never_finite_ends_the_run(text, tmp_path):
    optimizer = dataclasses.replace(tiny_run(text).optimizer, learning_rate=1e30)
    with pytest.raises(UserError, match=r"loss or gradient are not finite; expected a number; found 4 steps in a row"):
        run(tiny_run(text, optimizer=optimizer, bad_steps=4), tmp_path / "run", sink=io.StringIO())
    assert len(records(tmp_path / "run", "event")) >= 4


def test_a_configuration_survives_json(text):
    config = tiny_run(text)
    assert from_dict(type(config), json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    "change, said",
    [
        ({"row": 3}, r"config\.row: unknown key.*did you mean rows\?"),
        ({"rows": "3"}, r"config\.rows: wrong type; expected int; found '3'"),
        ({"optimizer": {"learning_rat": 1}}, r"config\.optimizer\.learning_rat: unknown key.*learning_rate"),
        ({"rows": 0}, r"rows: out of range; expected a positive integer; found 0"),
    ],
)
def test_mistakes_in_a_configuration(text, change, said):
    values = to_dict(tiny_run(text))
    with pytest.raises(UserError, match=said):
        from_dict(type(tiny_run(text)), values | change)
