"""Sinks: numbers arrive in other tools' calls, stood in for here; a missing package is one line."""

import sys
import types

import numpy as np
import pytest

from zaya_jax.errors import UserError
from zaya_jax.report.sinks import scalars, sinks

RECORD = {"kind": "train", "step": 7, "loss": 2.5, "load_entropy": np.array([0.5, 1.0]), "mfu": None, "note": "x"}
NUMBERS = {
    "train/loss": 2.5,
    "train/load_entropy/mean": 0.75,
    "train/load_entropy/min": 0.5,
    "train/load_entropy/max": 1.0,
}


def test_scalars():
    assert scalars(RECORD) == NUMBERS
    assert scalars({"kind": "eval", "name": "web", "step": 1, "loss": np.float32(2), "ok": True}) == {
        "eval/web/loss": 2.0
    }
    assert scalars({"kind": "spike", "examples": ["a"], "loss": float("nan"), "x": [None, 3]}) == {
        "spike/x/mean": 3, "spike/x/min": 3, "spike/x/max": 3,
    }  # fmt: skip


class Calls(list):
    """Remembers every call of any method."""

    def __getattr__(self, name):
        return lambda *arguments, **named: self.append((name, *arguments, named))


@pytest.fixture
def tensorboard(monkeypatch):
    calls = Calls()
    writer = lambda *arguments, **named: calls.append(("open", *arguments, named)) or calls  # noqa: E731
    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=writer))
    return calls


@pytest.fixture
def wandb(monkeypatch):
    calls = Calls()
    init = lambda **named: calls.append(("init", named)) or calls  # noqa: E731
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return calls


def test_tensorboard(tensorboard, tmp_path):
    (sink,) = sinks(["tensorboard"], tmp_path, {})
    sink.write(kind="start", config={}, parameters=3)
    sink.write(**RECORD)
    sink.close()
    written = [("add_scalar", name, value, 7, {}) for name, value in NUMBERS.items()]
    assert tensorboard == [("open", str(tmp_path / "tensorboard"), {}), *written, ("close", {})]


def test_tensorboard_forgets_what_lies_behind_the_resumed_step(tensorboard, tmp_path):
    sinks(["tensorboard"], tmp_path, {}, resume_step=40)
    assert tensorboard[0][-1] == {"purge_step": 41, "filename_suffix": ".40"}


def test_wandb(wandb, tmp_path):
    (sink,) = sinks(["wandb"], tmp_path, {"a": {"b": np.float32(0.5)}})
    sink.write(kind="start", parameters=3)
    sink.write(kind="sample", step=7, text="x")
    sink.write(**RECORD)
    sink.close()
    settings = wandb[0][1]
    assert settings["config"] == {"a": {"b": 0.5}} and settings["project"] == "zaya_jax"
    assert settings["name"] == tmp_path.name and settings["dir"] == str(tmp_path)
    steps = [("define_metric", "step", {}), ("define_metric", "*", {"step_metric": "step"})]
    assert wandb[1:] == [*steps, ("log", {"step": 7, **NUMBERS}, {}), ("finish", {})]


def test_wandb_goes_on_with_a_resumed_run_and_begins_a_new_one(wandb, tmp_path, monkeypatch):
    for resume_step in (None, 40, None):
        sinks(["wandb"], tmp_path, {}, resume_step)
    first, second, third = (call[1]["id"] for call in wandb if call[0] == "init")
    assert first == second != third
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    sinks(["wandb"], tmp_path, {})
    assert [call[1]["project"] for call in wandb if call[0] == "init"][-1] is None  # wandb reads it itself


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_package_says_what_to_install(name, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"pip install {module.lower()}, or zaya_jax with its extra `{name}`"):
        sinks([name], tmp_path, {})


def test_an_unknown_sink_opens_nothing(wandb, tmp_path):
    with pytest.raises(UserError, match="mlflow: unknown sink; expected tensorboard or wandb"):
        sinks(["wandb", "mlflow"], tmp_path, {})
    assert wandb == []
