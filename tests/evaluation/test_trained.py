"""`evaluate` on a model that was trained: what it learnt shows in the score, and the score is that of its samples."""

import io

import pytest

from tests.environments.rows import write
from tests.evaluation.searching import read
from tests.train.tiny_run import tiny_run
from zaya_jax.data.dataset import DataConfig
from zaya_jax.data.sources import SourceConfig
from zaya_jax.evaluation.evaluate import evaluate
from zaya_jax.evaluation.search_run import Machine
from zaya_jax.evaluation.wanted import Wanted
from zaya_jax.train.config import Evaluation
from zaya_jax.train.run import run

ANSWERS = {
    "always": ("7", "7"),
    "half": ("8", "3"),
    "never": ("5", "5"),
}  # of which the first is taught every other time
RIGHT = {"always": "7", "half": "8", "never": "6"}
SAMPLES = 16


def _reply(answer):
    return {"role": "assistant", "reasoning_content": "Hm.", "content": rf"\boxed{{{answer}}}"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny model that was taught to answer one problem, to guess at another, and a wrong answer to the third."""
    directory = tmp_path_factory.mktemp("trained")
    rows = [
        {"messages": [{"role": "user", "content": name}, _reply(answer)]}
        for name, answers in ANSWERS.items()
        for answer in answers
    ]
    write(directory / "chats.jsonl", *rows)
    source = SourceConfig("chats", "chat", str(directory / "chats.jsonl"))
    config = tiny_run("unused", data=DataConfig((source,), length=64), rows=8, steps=150, evaluation=Evaluation())
    assert run(config, directory / "run", sink=io.StringIO())
    return directory / "run" / "model"


def test_avg_at_k_of_a_trained_model_is_what_its_samples_say(trained, tmp_path):
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "integer.txt").write_text("{{problem}}")
    problems = [{"id": name, "problem": name, "kind": "integer", "answer": answer} for name, answer in RIGHT.items()]
    write(tmp_path / "p.jsonl", *problems)
    wanted = Wanted(n=SAMPLES, answer_budget=24, beta=24)
    machine = Machine(str(trained), "float32", slots=4, chunk=16)
    table = evaluate(machine, [str(tmp_path / "p.jsonl")], wanted, str(tmp_path / "out"), prompts=str(prompts))
    samples = read(tmp_path / "out" / "p" / "samples.jsonl")
    assert len(samples) == len(RIGHT) * SAMPLES
    hits = {name: [s["response"].count(rf"\boxed{{{answer}}}") for s in samples if s["problem"] == name]
            for name, answer in RIGHT.items()}  # fmt: skip
    shares = {name: sum(found) / SAMPLES for name, found in hits.items()}
    assert shares["always"] > 0.8 and 0.1 < shares["half"] < 0.9 and shares["never"] < 0.2
    by_hand = 100 * sum(shares.values()) / len(shares)
    assert float(table.splitlines()[2].split()[1]) == pytest.approx(by_hand, abs=0.05)
