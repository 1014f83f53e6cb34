"""Finetuning as runs: conversations, adapters, preferences; each begins with the last one's model."""

import dataclasses
import io
import json
import random
import shutil

import jax
import numpy as np
import pytest

import zaya_jax
from tests.experiments.launching import launch
from tests.model.helpers import quick_jit
from tests.train.models import tiny
from zaya_jax.checkpoint.train_state import read_manifest
from zaya_jax.data.dataset import DataConfig, open_dataset
from zaya_jax.data.sources import SourceConfig
from zaya_jax.errors import UserError
from zaya_jax.model.lora import LoraConfig
from zaya_jax.report.metrics import read_metrics
from zaya_jax.train.config import CheckpointPolicy, Evaluation, RunConfig, Samples
from zaya_jax.train.exporting import open_tokenizer
from zaya_jax.train.objective import batch_loss
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.preference import DpoConfig
from zaya_jax.train.run import run
from zaya_jax.train.step import init_state, train_step
from zaya_jax.train.trainer import Trainer

ANSWER, OTHER = "yes it is", "no"
LETTERS = "ABCDEFGHIJKLMNOP"  # no answer has one
LENGTH = 96


def prompts(count, seed):
    """That nobody can learn: letters by chance."""
    chance = random.Random(seed)
    return ["".join(chance.choice(LETTERS) for _ in range(12)) for _ in range(count)]


def said(role, content):
    return {"role": role, "content": content}


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    room = tmp_path_factory.mktemp("data")
    asked = [said("user", prompt) for prompt in prompts(64, 0)]
    chats = [{"messages": [question, said("assistant", ANSWER)]} for question in asked]
    pairs = [
        {"prompt": [question], "chosen": said("assistant", OTHER), "rejected": said("assistant", ANSWER)}
        for question in asked
    ]
    return {"chat": write(room / "chats.jsonl", chats), "preference": write(room / "pairs.jsonl", pairs)}


def stage(files, kind="chat", **changes):
    source = SourceConfig("data", kind, files[kind])
    values = {
        "name": kind,
        "model": tiny(vocab_size=272, max_position_embeddings=128),
        "data": DataConfig((source,), length=LENGTH),
        "optimizer": OptimizerConfig("adamw", learning_rate=1e-2, weight_decay=0.0),
        "rows": 2,
        "steps": 40,
        "loss_chunk": 64,
        "checkpoints": CheckpointPolicy(every=10),
        "evaluation": Evaluation(sources=(source,), rows=2),
        "samples": Samples(20, ("<|im_start|>",), tokens=8, temperature=0.0),
    }
    return RunConfig(**values | changes)


def start(config, workdir):
    assert run(config, workdir, sink=io.StringIO())
    return workdir


@pytest.fixture(scope="module")
def tuned(files, tmp_path_factory):
    return start(stage(files), tmp_path_factory.mktemp("sft") / "run")


def of_kind(workdir, kind):
    return [record for record in read_metrics(workdir / "metrics.jsonl") if record["kind"] == kind]


def nats(config, workdir):
    """Mean cross-entropy in the first batch of the data: of the targets that count, and of the prompts' letters."""
    tokenizer, _ = open_tokenizer("bytes")
    dataset, trainer = open_dataset(config.data, tokenizer), Trainer(config.model, config.trainer().execution)
    model = zaya_jax.load(workdir / "model", dtype="float32", layout="stacked")[1]
    loss = quick_jit(lambda v, batch: batch_loss(trainer, v["params"], v["balance"], batch)[:2])
    batch, _ = dataset.batch(0, 4)
    letters = np.isin(batch.targets_BT, tokenizer.encode_prompt(LETTERS)[1:])
    counted = (batch.mask_BT != 0).astype(np.float32)
    assert letters.sum() > 40 and not (letters * counted).any()
    found = [loss(model, batch._replace(mask_BT=mask)) for mask in (counted, letters.astype(np.float32))]
    return [float(total / count) for total, count in found]


def test_only_what_the_mask_says_is_learnt(files, tuned):
    """Answers become certain; of the prompts, whose bytes get no gradient, the model knows no more than chance."""
    answers, others = nats(stage(files), tuned)
    assert answers < 0.5
    assert others > np.log(272)


def test_what_does_not_count_changes_nothing(files):
    """Bit by bit: other targets where the mask is 0 give the same model."""
    config = stage(files)
    tokenizer, _ = open_tokenizer("bytes")
    batch, _ = open_dataset(config.data, tokenizer).batch(0, 2)
    noise = np.random.default_rng(0).integers(0, 256, batch.targets_BT.shape, np.int32)
    other = batch._replace(targets_BT=np.where(batch.mask_BT != 0, batch.targets_BT, noise))
    assert (other.targets_BT != batch.targets_BT).sum() > 20
    trainer, step = config.trainer(), quick_jit(train_step, static_argnums=0)
    state = quick_jit(init_state, static_argnums=0)(trainer, jax.random.key(0))
    one, two = (step(trainer, state, given, 1e-2)[0] for given in (batch, other))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_samples_are_on_record(tuned):
    samples = of_kind(tuned, "sample")
    assert [record["step"] for record in samples] == [20, 40]
    assert samples[-1]["prompt"] == "<|im_start|>" and isinstance(samples[-1]["text"], str)


def adapted(files, tuned, **changes):
    return stage(files, lora=LoraConfig(rank=4), initial=str(tuned / "model"), steps=20, **changes)


@pytest.fixture(scope="module")
def lora_run(files, tuned, tmp_path_factory):
    """Adapters that learn another answer."""
    other = dict(files)
    chats = [{"messages": [said("user", prompt), said("assistant", OTHER)]} for prompt in prompts(64, 0)]
    room = tmp_path_factory.mktemp("lora")
    other["chat"] = write(room / "chats.jsonl", chats)
    return adapted(other, tuned), start(adapted(other, tuned), room / "run")


def test_merged_adapters_are_the_applied_ones(lora_run, tuned):
    """The last look is taken with adapters beside the base, the exported model has them in it."""
    config, workdir = lora_run
    (look,) = of_kind(workdir, "eval")
    assert look["loss"] < 0.3 * of_kind(workdir, "train")[0]["loss"]
    tokenizer, _ = open_tokenizer("bytes")
    dataset, trainer = open_dataset(config.data, tokenizer), Trainer(config.model, config.trainer().execution)
    loss = quick_jit(lambda v, batch: batch_loss(trainer, v["params"], v["balance"], batch)[:2])
    model = zaya_jax.load(workdir / "model", dtype="float32", layout="stacked")[1]
    windows = dataset.summary()[0].windows
    sums = sum(np.asarray(loss(model, dataset.batch(i, 1)[0])) for i in range(windows))
    assert look["loss"] == pytest.approx(sums[0] / sums[1], rel=1e-4)


def test_a_checkpoint_of_adapters_has_no_base(lora_run):
    """The base stays where it is."""
    arrays = read_manifest(lora_run[1] / "checkpoints" / "20").arrays
    trained = [path for path in arrays if path.startswith("params/")]
    assert trained and all(path.endswith(("/a", "/b")) for path in trained)


def test_adapters_go_on_where_they_were_but_not_on_another_base(lora_run, tuned, tmp_path):
    config, whole = lora_run
    base = tmp_path / "base"
    shutil.copytree(tuned / "model", base)
    mine = dataclasses.replace(config, initial=str(base))
    assert not run(dataclasses.replace(mine, seconds=1e-9), tmp_path / "run", sink=io.StringIO())
    weights = base / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(UserError, match=r"is of another run: base differs"):
        run(mine, tmp_path / "run", sink=io.StringIO())
    code, _, error = launch("export", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'merged'}")
    assert code == 2 and "is not the model that the adapters were trained on" in error
    weights.write_bytes(before)
    assert run(mine, tmp_path / "run", sink=io.StringIO())
    ours, theirs = ([record["loss"] for record in of_kind(path, "train")] for path in (tmp_path / "run", whole))
    assert ours == theirs


def test_preferences_turn_the_answer_round(files, tuned, tmp_path):
    """The base gives the rejected answer; after the run the chosen one is likelier, by more than the reference had."""
    optimizer = OptimizerConfig("adamw", learning_rate=1e-3, weight_decay=0.0)
    config = stage(files, "preference", dpo=DpoConfig(), initial=str(tuned / "model"), optimizer=optimizer, steps=30)
    workdir = start(dataclasses.replace(config, balance_rate=0.0, samples=Samples()), tmp_path / "run")
    first, *_, last = of_kind(workdir, "train")
    assert first["loss"] == pytest.approx(np.log(2), rel=1e-3) and first["margin"] == pytest.approx(0, abs=1e-3)
    assert last["accuracy"] == 1 and last["margin"] > 2 and last["chosen_reward"] > last["rejected_reward"]
    (look,) = of_kind(workdir, "eval")
    assert look["loss"] < 0.3 and look["bits_per_byte"] is None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"lora": LoraConfig()}, "initial: adapters and preferences need a model to begin with"),
        ({"dpo": DpoConfig(), "initial": "x"}, 'data.sources: not preferences; expected kind "preference"'),
        ({"lora": LoraConfig(), "initial": "x", "optimizer": OptimizerConfig("muon")}, "adapters are trained by AdamW"),
        ({"model": tiny(vocab_size=272, max_position_embeddings=64)}, "a window is longer than the model's positions"),
        ({"rows": 0}, "rows: out of range"),
    ],
)
def test_stages_that_make_no_sense(files, changes, message):
    with pytest.raises(UserError, match=message):
        stage(files, **changes)


def test_preferences_without_their_loss_and_empty_prompts(files):
    with pytest.raises(UserError, match="preferences without a loss on pairs"):
        stage(files, "preference")
    with pytest.raises(UserError, match="nothing to continue"):
        Samples(1, ("",))


def test_a_model_of_another_architecture_is_refused(files, tuned, tmp_path):
    config = stage(files, initial=str(tuned / "model"), model=tiny(vocab_size=272, num_experts=5))
    with pytest.raises(UserError, match=r"is of another architecture; found num_experts 3, in model 5; give the"):
        run(config, tmp_path / "run", sink=io.StringIO())
    assert not (tmp_path / "run").exists()
