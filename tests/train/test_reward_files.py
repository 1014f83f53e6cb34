"""A reward model on disk: written beside a checkpoint, read back, refused where it does not fit; and a whole run."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.train.models import tiny
from zaya_jax.checkpoint import open_checkpoint
from zaya_jax.data.dataset import DataConfig
from zaya_jax.data.schema import parse_preference
from zaya_jax.data.sources import SourceConfig
from zaya_jax.errors import UserError
from zaya_jax.model.lora import LoraConfig
from zaya_jax.train.config import Evaluation, RunConfig, Samples, conflicts
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.preference import DpoConfig
from zaya_jax.train.reward_files import (
    FACTS_FILE,
    HEAD_FILE,
    TENSOR,
    head_files,
    judge_pairs,
    load_head,
    load_reward_model,
    score_conversations,
)
from zaya_jax.train.reward_model import BradleyTerryConfig
from zaya_jax.train.reward_run import run_reward_model
from zaya_jax.train.settings import to_json

HEAD = np.linspace(-1, 1, 16).astype(np.float32)


@pytest.fixture
def directory(tmp_path):
    for name, content in head_files(BradleyTerryConfig(0.5, 0.02), jnp.asarray(HEAD)).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_head_comes_back(directory):
    np.testing.assert_array_equal(load_head(directory, 16), HEAD)
    np.testing.assert_array_equal(load_file(directory / HEAD_FILE)[TENSOR], HEAD)  # by the format's own library
    facts = json.loads((directory / FACTS_FILE).read_text())
    assert facts == {"version": 1, "kind": "bradley-terry", "hidden_size": 16, "margin": 0.5, "centring": 0.02}


def other_facts(**changes):
    def spoil(directory):
        facts = json.loads((directory / FACTS_FILE).read_text()) | changes
        (directory / FACTS_FILE).write_text(json.dumps(facts))

    return spoil


def other_tensor(name, values):
    return lambda directory: save_file({name: values}, directory / HEAD_FILE)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / HEAD_FILE).unlink(), "is no reward model; expected reward_head.safetensors and reward_model"),
        (lambda d: (d / FACTS_FILE).unlink(), "is no reward model; expected reward_head.safetensors and reward_model"),
        (other_facts(version=2), "reward_model.json, version: does not fit; expected 1; found 2"),
        (other_facts(kind="regression"), "kind: does not fit; expected 'bradley-terry'; found 'regression'"),
        (other_facts(hidden_size=8), "hidden_size: does not fit; expected 16; found 8"),
        (lambda d: (d / FACTS_FILE).write_text("{"), "reward_model.json, line 1"),
        (other_tensor("head", HEAD), "holds another tensor; expected reward_head.weight F32[16]; found head F32[16]"),
        (other_tensor(TENSOR, HEAD[:8]), "expected reward_head.weight F32[16]; found reward_head.weight F32[8]"),
        (other_tensor(TENSOR, HEAD.astype(np.float64)), "found reward_head.weight F64[16]"),
        (other_tensor(TENSOR, HEAD * np.float32("nan")), "reward_head.weight: not finite; train it again"),
        (lambda d: (d / HEAD_FILE).write_bytes(b"\x08"), "reward_head.safetensors: "),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(directory, spoil, message):
    spoil(directory)
    with pytest.raises(UserError) as caught:
        load_head(directory, 16)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def config(**changes) -> RunConfig:
    values = {
        "name": "reward",
        "model": tiny(vocab_size=272),
        "data": DataConfig((SourceConfig("made", "made_preferences", "held_out"),), length=384),
        "optimizer": OptimizerConfig(learning_rate=1e-2, weight_decay=0.0),
        "balance_rate": 0.0,
        "reward": BradleyTerryConfig(),
        "rows": 2,
        "steps": 2,
        "evaluation": Evaluation(sources=(SourceConfig("again", "made_preferences", "held_out"),)),
    }
    return RunConfig(**values | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dpo": DpoConfig(), "initial": "x"}, "reward: goes not together with dpo"),
        ({"lora": LoraConfig(), "initial": "x"}, "reward: goes not together with lora"),
        ({"samples": Samples(1, ("a",))}, "reward: goes not together with samples"),
        ({"data": DataConfig((SourceConfig("sums", "sums", "train"),), length=64)}, "data.sources: not preferences"),
        ({"reward": None}, "data.sources: preferences without a loss on pairs; found made; set dpo or reward"),
    ],
)
def test_what_goes_not_together_is_refused(changes, message):
    with pytest.raises(UserError) as caught:
        config(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize("changes", [{"margin": -1.0}, {"centring": -0.1}, {"margin": float("nan")}])
def test_a_configuration_without_sense_is_refused(changes):
    with pytest.raises(UserError, match=f"BradleyTerryConfig.{next(iter(changes))}"):
        BradleyTerryConfig(**changes)


def test_a_run_from_before_there_were_reward_models_is_the_same_run():
    old = to_json(config())
    assert conflicts(old, old | {"later": None}) == {}
    assert "later" in conflicts(old, old | {"later": 3}) and "later" in conflicts(old | {"later": 3}, old)


def test_a_run_leaves_a_reward_model_and_what_it_makes_of_held_out_pairs(tmp_path, capsys):
    """Trained for two steps only: what counts is that all parts fit together."""
    workdir = tmp_path / "run"
    found = run_reward_model(config(), workdir)["again"]
    written = json.loads((workdir / "pairs.json").read_text())["again"]
    assert written == found._asdict() and found.pairs == 200 and 0 <= found.accuracy <= 1
    assert f"{found.accuracy:.1%} of 200 pairs ranked right" in capsys.readouterr().out
    assert open_checkpoint(workdir / "model").config == tiny(vocab_size=272)  # still a language model's directory

    reward = load_reward_model(workdir / "model", "float32")
    user = [{"role": "user", "content": "Hi"}]
    said = [[*user, {"role": "assistant", "content": text}] for text in ("a", "bb " * 40, "ccc")]
    together = score_conversations(reward, said, rows=4)
    apart = [score_conversations(reward, [one], rows=4)[0] for one in said]
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-6)
    assert len(set(together)) == 3

    pairs = [
        parse_preference({"prompt": user, "chosen": a[1], "rejected": b[1]})
        for a, b in ((said[0], said[1]), (said[1], said[0]), (said[2], said[0]))
    ]
    report = judge_pairs(reward, pairs, rows=4)
    signs = together[0] > together[1], together[1] > together[0], together[2] > together[0]
    assert (report.pairs, report.accuracy, report.ties) == (3, pytest.approx(sum(signs) / 3), 0)
    with pytest.raises(UserError, match="no preferences; expected at least one pair"):
        judge_pairs(reward, [])
