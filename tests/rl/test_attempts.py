"""Attempts of a frozen model, the prompts that a stage makes of them, and a stage with both."""

import dataclasses
import io
import json

import pytest

from tests.environments.attempt_rows import rows as made_rows
from tests.environments.attempt_rows import write
from tests.evaluation.searching import write_roomy
from zaya_jax.environments.aggregation import original
from zaya_jax.environments.attempts import Attempt, Row, read_attempts
from zaya_jax.environments.environment import Problem
from zaya_jax.environments.named import named
from zaya_jax.environments.parts import part_of
from zaya_jax.errors import UserError
from zaya_jax.evaluation.search_run import Machine
from zaya_jax.evaluation.search_task import make_questions
from zaya_jax.loading import load
from zaya_jax.report.metrics import read_metrics
from zaya_jax.rl.attempts import Making, make_attempts
from zaya_jax.rl.config import HeldOutConfig, RlConfig
from zaya_jax.rl.gathering import is_held_out
from zaya_jax.rl.generation import Asked, Decoding, make_requests, prompt_of
from zaya_jax.rl.run import run
from zaya_jax.rl.scheduling import Schedule, Source
from zaya_jax.sampling.engine import Engine
from zaya_jax.sampling.markovian_rsa import Search, Settings, draw_parents
from zaya_jax.sampling.rsa_run import run_searches
from zaya_jax.text.byte_level import FIRST_BYTE_ID, THINK_END_ID, THINK_START_ID
from zaya_jax.text.tokenizer import require_tokenizer
from zaya_jax.train.optimizer import OptimizerConfig

pytestmark = pytest.mark.usefixtures("quick_programs")
MAKING = Making(("tests.rl.easy:EASY",), (1, 3), 5, 3, thinking_budget=12, answer_budget=6, tail=4)


@pytest.fixture(scope="module")
def initial(tmp_path_factory):
    return write_roomy(tmp_path_factory.mktemp("initial") / "model")


@pytest.fixture(scope="module")
def machine(initial):
    return Machine(str(initial), "float32", slots=4, chunk=32)


@pytest.fixture(scope="module")
def tokenizer(initial):
    return require_tokenizer(initial)


@pytest.fixture(scope="module")
def file(machine, tmp_path_factory):
    path = tmp_path_factory.mktemp("attempts") / "tries.jsonl"
    said = make_attempts(machine, MAKING, path, workers=1)
    assert said.startswith(f"{path}: 5 problems, 15 attempts, ")
    return path


def test_prompts_are_those_of_markovian_rsa(initial, tokenizer, tmp_path):
    """Tails of a search's round 0, in a file, come back as the prompts of its round 1, token by token."""
    problem = Problem("p", "Say a.", {"kind": "easy"})
    (question,) = make_questions(tokenizer, [problem], 2, "compact")
    settings = Settings(n=4, c=2, t=1, beta=16, tau=6, answer_budget=4)
    model, variables, _ = load(initial, dtype="float32")
    search = Search(question, settings, 512)
    list(run_searches(Engine(model, variables, slots=4, capacity=128, chunk=32), [search]))
    tails = [tuple(candidate.carried.tolist()) for candidate in search.population(0)]
    attempts = tuple(Attempt(tokenizer.decode(tail), tail) for tail in tails)
    path = write(tmp_path / "a.jsonl", [Row("p", "tests.rl.easy:EASY", 0, problem, attempts).to_json()])
    environment = named(f"attempts:{path}?count=2&wording=compact")
    shown = {}
    for seed in range(200):
        one = environment.generate(seed, 0)
        shown[tuple(one.meta["shown"]["places"])] = prompt_of(tokenizer, one)
    assert len(shown) == 12 and max(map(len, tails)) == 6
    for index, parents in enumerate(draw_parents(settings, "p", 1)):
        assert shown[parents] == search.candidates[1, index].request.tokens


def test_texts_are_cut_into_tokens(tokenizer, tmp_path):
    """Where nobody knows an attempt's tokens its text has those that were drawn, byte by byte."""
    environment = named(f"attempts:{write(tmp_path / 'a.jsonl', made_rows(count=1))}?wording=compact")
    problem = environment.generate(0, 0)
    tokens = prompt_of(tokenizer, problem)
    spelled = [FIRST_BYTE_ID + byte for byte in problem.prompt.encode()]
    start = next(i for i in range(len(tokens)) if list(tokens[i : i + len(spelled)]) == spelled)
    assert tokens[-1] == THINK_START_ID or THINK_START_ID in tokens[start + len(spelled) :]
    assert tokens == tuple(tokenizer.encode_chat([{"role": "user", "content": problem.prompt}])) or (
        tokens[:-1] == tuple(tokenizer.encode_chat([{"role": "user", "content": problem.prompt}]))
    )


def test_tokens_of_another_tokenizer(tokenizer, tmp_path):
    (record,) = made_rows((("addition", 0),), 1)
    record["attempts"] = [{"text": "abcd", "tokens": [FIRST_BYTE_ID + 97]}] * 4
    problem = named(f"attempts:{write(tmp_path / 'a.jsonl', [record])}").generate(0, 0)
    with pytest.raises(UserError, match="attempts in tokens of another tokenizer; expected 'abcd'; found 'a'"):
        prompt_of(tokenizer, problem)


def test_what_is_made(file, machine, tokenizer, initial):
    """Every attempt again, by an engine of one's own: the reasoning's end, whether it came to one, and the verdict."""
    found = read_attempts(file)
    assert [(row.environment, row.difficulty) for row in found] == [("tests.rl.easy:EASY", d) for d in (1, 3, 1, 3, 1)]
    assert all(part_of(row.problem.prompt) == "train" for row in found)
    decoding = Decoding(3, 12, 6, slots=4, chunk=32, prompt_budget=64)
    model, variables, _ = load(initial, dtype="float32")
    easy = named("tests.rl.easy:EASY")
    ends = []
    for number, row in enumerate(found):
        asked = Asked(number, row.environment, row.difficulty, row.problem, prompt_of(tokenizer, row.problem))
        requests = make_requests(asked, decoding, tokenizer, MAKING.seed)
        engine = Engine(model, variables, slots=4, capacity=decoding.capacity, chunk=32)
        for attempt, one in zip(row.attempts, engine.run(requests), strict=True):
            tokens = one.tokens.tolist()
            end = tokens.index(THINK_END_ID) if THINK_END_ID in tokens else len(tokens)
            thought, answer = (
                [token for token in part if token not in (THINK_START_ID, *tokenizer.stop_ids)]
                for part in (tokens[:end], tokens[end + 1 :])
            )
            assert attempt.tokens == tuple(thought[-4:]) and attempt.text == tokenizer.decode(attempt.tokens)
            assert attempt.right == easy.verify(row.problem, tokenizer.decode(answer)).correct
            assert attempt.finished == (not one.think_forced and one.finish_reason == "stop")
            ends.append((attempt.right, attempt.finished))
    assert len({right for right, _ in ends}) == 2, "some are right and some are not, or nothing is tested"


def test_an_interrupted_run_goes_on(file, machine, tmp_path):
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    output, beside = tmp_path / "tries.jsonl", tmp_path / ".tries.jsonl.rows"
    for left in ([lines[3], lines[0]], lines):
        beside.write_bytes(b"".join(left))
        make_attempts(machine, MAKING, output, workers=1)
        assert output.read_bytes() == whole and not beside.exists()
    beside.write_bytes(lines[0])
    with pytest.raises(UserError, match=r"an unfinished file of other settings; found tail 4; go on"):
        make_attempts(machine, dataclasses.replace(MAKING, tail=5), output, workers=1)
    assert output.read_bytes() == whole, "what was there stays"


@pytest.mark.parametrize(
    "change, said",
    [
        ({"tail": 13}, "a tail longer than the reasoning; expected at most thinking_budget = 12; found 13"),
        ({"attempts": 1}, "attempts: out of range; expected 2 or more"),
        ({"environments": ()}, "environments: out of range"),
        ({"thinking_budget": 600}, "longer than the context; expected at most 512 tokens"),
        ({"environments": ("additon",)}, "no such environment"),
        ({"environments": ("automaton",), "difficulties": (0,), "problems": 10**6}, "not that many problems"),
    ],
)
def test_mistakes(machine, tmp_path, change, said):
    with pytest.raises(UserError, match=said):
        make_attempts(machine, dataclasses.replace(MAKING, **change), tmp_path / "a.jsonl", workers=1)
    assert list(tmp_path.iterdir()) == []


def config(initial, file, **changes) -> RlConfig:
    """A stage of one environment, and of prompts with attempts at its problems."""
    sources = Source("tests.rl.easy:EASY"), Source(f"attempts:{file}?count=2&wording=compact", start=1, cap=3)
    values = {
        "name": "tiny",
        "initial": str(initial),
        "schedule": Schedule(sources),
        "decoding": Decoding(4, 12, 6, slots=4, chunk=32, prompt_budget=96),
        "optimizer": OptimizerConfig("muon", learning_rate=3e-3, momentum=0.0),
        "steps": 2,
        "groups": 4,
        "waves": 2,
        "rows": 4,
        "length": 160,
        "parity_every": 1,
        "held_out": HeldOutConfig(every=2, problems=2, answers=2),
    }
    return RlConfig(**values | changes)


def test_a_stage_with_attempts(initial, file, tokenizer, tmp_path):
    own = config(initial, file)
    assert run(own, tmp_path / "run", sink=io.StringIO())
    name = own.schedule.names[1]
    logged = [json.loads(line) for line in (tmp_path / "run/rollouts.jsonl").read_text().splitlines()]
    drawn = [row for row in logged if row["environment"] == name]
    assert drawn and len(drawn) < len(logged) and {row["correct"] for row in drawn} == {True, False}
    environment, easy = named(name), named("tests.rl.easy:EASY")
    for row in drawn:
        problem = environment.generate(int(row["problem"].rpartition("/")[2]), row["difficulty"])
        assert row["prompt"] == problem.prompt and row["prompt"].endswith("merge")
        if row["response"]:
            assert row["correct"] == easy.verify(original(problem), row["response"]).correct
    records = list(read_metrics(tmp_path / "run/metrics.jsonl"))
    assert {record["environment"] for record in records if record["kind"] == "look"} == {"tests.rl.easy:EASY"}
    steps = [record for record in records if record["kind"] == "step"]
    assert all(record["parity"]["max_delta"] < 1e-3 for record in steps if record["parity"])
    assert any(name in record["environments"] for record in steps)


def test_what_is_held_out_of_a_stage(initial, file):
    """The problem's own prompt decides, not the one with attempts; its looks pass prompts with attempts over."""
    own = config(initial, file)
    name = own.schedule.names[1]
    environment = named(name)
    problems = [environment.generate(seed, 1) for seed in range(60)]
    assert {part_of(problem.prompt) for problem in problems} == {"train", "held_out"}
    assert not any(is_held_out(own, name, problem) for problem in problems)
    hidden = {"environment": "tests.rl.easy:EASY", "problem": Problem("x", held_out_text(), {}).to_json()}
    assert is_held_out(own, name, dataclasses.replace(problems[0], hidden=hidden))


def held_out_text() -> str:
    return next(text for text in (f"t{i}" for i in range(1000)) if part_of(text) == "held_out")
