"""Aggregation data: hand-worked prompts, mixes, what is learnt of a row, resuming, mistakes."""

import itertools
import json
import math
import re
import shutil
import types

import numpy as np
import pytest

from tests.environments.rows import INTEGER, write
from tests.evaluation.searching import CONTEXT, WORDING, read, write_problems, write_sums
from tests.experiments.in_process import run
from tests.experiments.launching import launch
from tests.sampling.joined import make_tails, run_assemble
from tests.sampling.models import tokenizer
from tests.sampling.scripted import Scripted
from tests.text.checkpoints import CHATML, write_checkpoint
from zaya_jax.data.encoding import encode
from zaya_jax.data.schema import parse_chat
from zaya_jax.data.sources import SourceConfig
from zaya_jax.environments.benchmarks import read_benchmark, verify
from zaya_jax.environments.environment import Problem
from zaya_jax.errors import UserError
from zaya_jax.evaluation import aggregation_data, search_run
from zaya_jax.evaluation.aggregation_data import Making, make_aggregation_data
from zaya_jax.evaluation.aggregation_mix import KINDS, draw_attempts, kind_of, parse_mix, plan, quotas
from zaya_jax.evaluation.search_run import Machine
from zaya_jax.sampling.tails import make_template
from zaya_jax.text.aggregation import cut_prompts, load_wording
from zaya_jax.text.byte_level import IM_END_ID, THINK_END_ID

pytestmark = pytest.mark.usefixtures("quick_programs")

BETA, TAU = 20, 8
LONG = "and so on and so on and so on"
# Of each rollout: what it thinks, whether it ends that itself, what it answers.
ROLLOUTS = [
    ("6*7 is 42", True, r"\boxed{42}"),
    ("6+7 is 13", True, r"\boxed{13}"),
    (LONG, False, r"\boxed{42}"),
    (LONG[::-1], False, "none"),
]
TAILS = ["*7 is 42", "+7 is 13", "d so on ", " os dna "]
RIGHT, FINISHED = [True, False, True, False], [True, True, False, False]


def tokens(text):
    return tokenizer().encode(text, special=False)


def say(thought, ends, answer):
    """The tokens of a reply; if it does not end its reasoning itself, a budget has to."""
    return [*tokens(thought)[: None if ends else BETA], THINK_END_ID, *tokens(answer), IM_END_ID, *tokens(LONG)]


def rollout(request):
    return say(*ROLLOUTS[int(request.id.split("/")[2])])


def teacher(request):
    """Finds 42; the answer to the last draw is longer than its budget."""
    return say("Now I know", True, "x" * 30 if request.id.endswith("/5") else r"\boxed{42}")


@pytest.fixture
def scripted(monkeypatch):
    """Models that are tables, and all they are asked."""
    asked = {"rollouts": [], "teacher": []}

    def engine(name, wants):
        def make(*_, **__):
            model = Scripted(wants)
            model.asked, model.stats = asked[name], types.SimpleNamespace(decoded_tokens=0)
            return model

        return make

    for module, name, wants in ((search_run, "rollouts", rollout), (aggregation_data, "teacher", teacher)):
        monkeypatch.setattr(module, "load", lambda *_, **__: (None, None, None))
        monkeypatch.setattr(module, "Engine", engine(name, wants))
    return asked


@pytest.fixture
def make(roomy, tmp_path):
    """Makes data of problems a and b in `out/`; gives the directory and the summary."""
    (tmp_path / "wording.txt").write_text(WORDING)

    def go(output="out", problems=None, rollouts=None, limit=None, machine=None, **values):
        defaults = {"n": 4, "c": 2, "m": 6, "beta": BETA, "tau": TAU, "answer_budget": 12}
        who = {} if {"teacher", "oracle", "rl_only"} & set(values) else {"teacher": str(roomy)}
        making = Making(**(defaults | who | values), wording=str(tmp_path / "wording.txt"))
        problems = problems or write_sums(tmp_path / "p.jsonl", "a", "b")
        machine = machine or Machine(str(roomy), "float32", slots=4, chunk=16)
        more = {"rollouts": rollouts and str(rollouts), "limit": limit}
        return tmp_path / output, make_aggregation_data(machine, str(problems), making, str(tmp_path / output), **more)

    return go


def rendered(problem, tails):
    attempts = "\n\n".join(f"<{number}>{tail}</{number}>" for number, tail in enumerate(tails, 1))
    return f"{problem}\n\n{len(tails)}:\n{attempts}\nGo."


def around(text):
    """What the template makes of a message, and the mark that opens the reasoning."""
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n<think>"


def test_every_row_by_hand(make, scripted, roomy, tmp_path):
    directory, summary = make(limit=1)
    (problem,) = read_benchmark(tmp_path / "p.jsonl")[:1]
    rows, prompts = read(directory / "sft.jsonl"), read(directory / "rl.jsonl")
    # All 6 ways to draw 2 of 4, once each; the reply to the last one has no end.
    assert sorted(tuple(sorted(row["meta"]["aggregation"]["rollouts"])) for row in prompts) == [
        *itertools.combinations(range(4), 2)
    ]
    assert [row["meta"]["draw"] for row in rows] == [0, 1, 2, 3, 4]
    for number, one in enumerate(prompts):
        said = one["meta"]["aggregation"]
        chosen = said["rollouts"]
        text = rendered(problem.prompt, [TAILS[i] for i in chosen])
        assert said == {
            "problem": "a", "draw": number, "rollouts": chosen, "tails": [8, 8], "right": [RIGHT[i] for i in chosen],
            "correct": sum(RIGHT[i] for i in chosen), "finished": [FINISHED[i] for i in chosen],
            "prompt_tokens": len(tokens(around(text))), "exact": True, "checkpoint": str(roomy), "seed": 0,
            "rollout_seed": 0, "beta": BETA, "tau": TAU,
        }  # fmt: skip
        assert one["prompt"] == text
        again = Problem.from_json(one)
        assert again.id == f"a/aggregation/{number}" and again.hidden == problem.hidden
        assert again.meta["benchmark"] == "p" and verify(again, r"</think>\boxed{42}").correct
    for row in rows:
        said, asked = row["meta"], scripted["teacher"][row["meta"]["draw"]]
        text = prompts[said["draw"]]["prompt"]
        assert row["prompt_ids"] == tokens(around(text)) == list(asked.tokens)
        user, assistant = row["messages"]
        assert user == {"role": "user", "content": text}
        assert assistant == {"role": "assistant", "content": r"<think>Now I know</think>\boxed{42}"}
        assert (said["reply_tokens"], said["think_forced"]) == (22, False)
    assert "left out of sft.jsonl: 1 replies without an end or an answer" in summary
    lines = [line.split() for line in summary.splitlines()]
    assert lines[2][:8] == ["0", "of", "2", "1", "16.7%", "1", "1", "8"]
    assert lines[3][:8] == ["1", "of", "2", "4", "66.7%", "4", "4", "8"]
    assert lines[4][:8] == ["2", "of", "2", "1", "16.7%", "1", "1", "8"]
    assert lines[5][:7] == ["all", "6", "100.0%", "6", "6", "8", f"{len(rows[0]['prompt_ids'])}"]
    assert lines[5][7:] == ["5", "22", "6"]


def test_the_prompt_is_what_a_search_asks(roomy):
    pieces = cut_prompts(tokenizer(), "What is 6 * 7?", load_wording("math"), 3)
    tails = [np.array(tokens(text), np.int32) for text in ("one", "", "three")]
    template, parents = make_template(pieces.between), np.array([[0, 1, 2]], np.int32)
    row, count = run_assemble(template, make_tails(tails, 5), parents, width=2048)
    assert pieces.around([tail.tolist() for tail in tails]) == tuple(np.asarray(row)[0, : int(count[0])].tolist())


def test_the_loss_is_on_the_answer_alone(make, scripted):
    directory, _ = make()
    code, out, err = run("data", f"--validate={directory / 'sft.jsonl'}", "--kind=chat")
    assert code == 0 and "no mistakes; kind chat, schema 1: 10 records, 20 messages, 10 replies that count" in out, err
    source = SourceConfig("data", "chat", str(directory / "sft.jsonl"))
    for row in read(directory / "sft.jsonl"):
        (example,) = encode(parse_chat(row), source, tokenizer(), 1024).examples
        counted = tokenizer().decode(example.tokens[example.weights > 0], skip_special=False)
        assert counted == row["messages"][1]["content"] + "<|im_end|>"
        prompt = row["prompt_ids"][:-1]  # the last one opens the reasoning, which the reply does
        assert example.tokens[: len(prompt)].tolist() == prompt and not example.weights[: len(prompt)].any()
        assert set(example.weights[len(prompt) :].tolist()) == {0.0, 1.0}


def test_rollouts_of_an_older_run(make, scripted, tmp_path):
    first, summary = make()
    second, again = make("second", rollouts=first / "rollouts", n=None, beta=None, machine=Machine(""))
    assert len(scripted["rollouts"]) == 8, "nothing is sampled twice"
    assert again == summary and read(second / "sft.jsonl") == read(first / "sft.jsonl")
    third, _ = make("third", rollouts=first / "rollouts", n=3, m=3, rl_only=True)
    assert {i for one in read(third / "rl.jsonl") for i in one["meta"]["aggregation"]["rollouts"]} == {0, 1, 2}
    assert not (third / "sft.jsonl").exists() and not (third / "rollouts").exists()


def test_the_launcher(make, scripted, roomy, tmp_path):
    mix = "all_wrong=0.25,mixed=0.5,all_right=0.25"
    first, summary = make(m=2, mix=parse_mix(mix))
    files = [f"--problems={tmp_path / 'p.jsonl'}", f"--wording={tmp_path / 'wording.txt'}"]
    given = [f"--checkpoint={roomy}", f"--teacher={roomy}", f"--output={tmp_path / 'again'}", f"--mix={mix}"]
    code, out, err = run("make_aggregation_data", *files, *given, *FLAGS)
    assert (code, out) == (0, summary + "\n"), err
    assert read(tmp_path / "again/sft.jsonl") == read(first / "sft.jsonl")


def test_an_oracle_answers(make, scripted):
    directory, _ = make(oracle="tests.evaluation.oracles:longest", limit=1)
    for row in read(directory / "sft.jsonl"):
        text = f"<think>Of 2 I like '{TAILS[row['meta']['rollouts'][0]]}'.</think>\\boxed{{42}}"
        assert row["messages"][1]["content"] == text and row["meta"]["reply_tokens"] == len(tokens(text))
        assert row["meta"]["answered_by"] == "tests.evaluation.oracles:longest"
    directory, _ = make("plain", oracle="tests.evaluation.oracles:plain", limit=1)
    assert {row["messages"][1]["content"] for row in read(directory / "sft.jsonl")} == {"42"}


def test_a_mix_is_reached(make, scripted):
    directory, summary = make(m=2, mix=parse_mix("all_wrong=0.25, mixed=0.5, all_right=0.25"))
    found = [row["meta"]["aggregation"]["correct"] for row in read(directory / "rl.jsonl")]
    assert sorted(found) == [0, 1, 1, 2] and "mix:" not in summary
    directory, summary = make("more", m=4, mix={"all_wrong": 0.75, "mixed": 0.25})
    found = [row["meta"]["aggregation"]["correct"] for row in read(directory / "rl.jsonl")]
    assert sorted(found) == [0, 0, 1, 1], "a problem has one draw that is all wrong"
    assert "mix: the rollouts allow all_wrong 2 of 6 prompts that were wanted" in summary


def allowed(right, n, c):
    """Different draws of each kind."""
    sets = [sum(i < right for i in chosen) for chosen in itertools.combinations(range(n), c)]
    return {kind: sum(kind_of(count, c) == kind for count in sets) for kind in KINDS}


@pytest.mark.parametrize("seed", range(12))
def test_a_plan_is_the_best_there_is(seed):
    rng = np.random.default_rng(seed)
    n, c, m = 4, 2, 2
    right = {name: int(rng.integers(n + 1)) for name in "abc"}
    mix = dict(zip(KINDS, rng.dirichlet([1, 1, 1]).tolist()))
    wanted, order = quotas(mix, m * len(right)), ("all_wrong", "all_right", "mixed")
    assert sum(wanted.values()) == m * len(right)
    found = plan(right, n, c, m, mix, seed)
    for name, kinds in found.items():
        assert len(kinds) <= m and all(kinds.count(kind) <= allowed(right[name], n, c)[kind] for kind in KINDS)
    counts = tuple(sum(kinds.count(kind) for kinds in found.values()) for kind in order)
    each = [
        [x for x in itertools.product(range(m + 1), repeat=3)
         if sum(x) <= m and all(a <= allowed(r, n, c)[kind] for a, kind in zip(x, order))]
        for r in right.values()
    ]  # fmt: skip
    sums = {tuple(map(sum, zip(*choice))) for choice in itertools.product(*each)}
    assert counts == max(s for s in sums if all(a <= wanted[kind] for a, kind in zip(s, order)))
    assert found == plan(right, n, c, m, mix, seed)


def test_draws_are_even_and_of_their_kind():
    every = [draw_attempts(f"p{i}", [None] * 3, {0, 1}, 5, 2, seed=1) for i in range(600)]
    counts = np.bincount(np.array(every).ravel(), minlength=5)
    assert abs(counts - 720).max() < 5 * math.sqrt(720)
    assert all(len({frozenset(draw) for draw in draws}) == 3 for draws in every)
    assert every[0] == draw_attempts("p0", [None] * 3, {0, 1}, 5, 2, seed=1) != every[1]
    assert every[0][:2] == draw_attempts("p0", [None] * 2, {0, 1}, 5, 2, seed=1)
    kinds = ["all_wrong", "mixed", "all_right", "mixed", "mixed"]
    for draws in (draw_attempts(f"p{i}", kinds, {1, 4}, 5, 2, seed=0) for i in range(50)):
        assert [kind_of(sum(i in (1, 4) for i in draw), 2) for draw in draws] == kinds
    mixed = [draw_attempts(f"p{i}", ["mixed"], {1, 4}, 5, 2, seed=0)[0] for i in range(600)]
    assert {len(set(draw)) for draw in mixed} == {2} and len(set(map(frozenset, mixed))) == 6


@pytest.mark.slow
def test_text_that_is_cut_otherwise(make, roomy):
    """The tiny model says bytes that are no text: its tails are not what their texts are cut into."""
    directory, summary = make(m=2)
    prompts = read(directory / "rl.jsonl")
    exact = [row["meta"]["aggregation"]["exact"] for row in prompts]
    assert len(exact) == 4 and not all(exact)
    for row in read(directory / "sft.jsonl"):
        again = tokenizer().encode_chat(row["messages"][:1])
        assert (row["prompt_ids"][: len(again)] == again) == row["meta"]["exact"]
    dropped, less = make("dropped", m=2, rollouts=directory / "rollouts", inexact="drop")
    assert len(read(dropped / "rl.jsonl")) == sum(exact)
    assert f"left out: {4 - sum(exact)} prompts whose text is cut into other tokens" in less


def test_a_killed_run_goes_on(make, tmp_path):
    problems = write_problems(tmp_path / "free.jsonl", "a", "b")
    settings = {"problems": problems, "n": 3, "m": 3, "answer_budget": 24}
    directory, summary = make(**settings)
    files = [directory / name for name in ("sft.jsonl", "rl.jsonl", "rollouts/candidates.jsonl")]
    whole = [file.read_bytes() for file in files]
    replies = (directory / "replies.jsonl").read_bytes().splitlines(keepends=True)
    candidates = whole[2].splitlines(keepends=True)
    assert len(replies) == 6 and read(directory / "sft.jsonl")
    for count in range(6):
        for file in files:
            file.unlink()
        (directory / "replies.jsonl").write_bytes(b"".join(replies[:count]) + replies[count][:20])
        files[2].write_bytes(b"".join(candidates) if count else candidates[0] + candidates[1][:9])
        with pytest.warns(UserWarning, match="the last line was cut off"):
            _, again = make(**settings)
        assert again == summary and [file.read_bytes() for file in files] == whole
    other, _ = make("other", **settings)
    assert (other / "sft.jsonl").read_bytes() == whole[0]
    with pytest.raises(UserError, match="the directory of another run; found m: 3 -> 2, seed: 0 -> 1"):
        make(**settings | {"m": 2}, seed=1)
    (tmp_path / "wording.txt").write_text(WORDING.replace("Go.", "Go!"))
    with pytest.raises(UserError, match=r"another run; found wordings\..*wording.txt: "):
        make(**settings)


def test_mixes_are_read():
    assert parse_mix("mixed=1") == {"mixed": 1.0}
    for text, said in [
        ("all_wrong=0.2,mixed=0.6", "mix: shares do not sum to 1; expected 1; found 0.8"),
        ("mixd=1", "mix: unknown or repeated kind; expected all_wrong, mixed, all_right; found 'mixd'; did you mean"),
        ("mixed=0.5,mixed=0.5", "unknown or repeated kind"),
        ("mixed", "mix, mixed: not a share; expected a number from 0 to 1; found ''"),
        ("mixed=-1,all_right=2", "mix, mixed: not a share"),
    ]:
        with pytest.raises(UserError, match=said):
            parse_mix(text)


FLAGS = ["--n=4", "--c=2", "--m=2", "--beta=20", "--tau=8", "--answer_budget=12", "--dtype=float32"]


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--rl_only", "--c=5"], "c: more tails than candidates; expected at most n = 4; found 5"),
        (["--rl_only", "--tau=21"], "tau: a tail longer than the reasoning; expected at most beta = 20; found 21"),
        (["--rl_only", "--m=7"], "m: out of range; expected 1 to 6, the draws of 2 out of 4 that differ; found 7"),
        (["--rl_only", "--mix=mixed=0.5"], "mix: shares do not sum to 1; expected 1; found 0.5"),
        ([], "who answers the prompts is not clear; expected one of --teacher, --oracle and --rl_only"),
        (["--rl_only", "--oracle=a:b"], "who answers the prompts is not clear"),
        (["--oracle=no.such:function"], "no.such:function: the oracle cannot be imported; expected package.module:fu"),
        (["--oracle=tests.evaluation.oracles:none"], "the oracle cannot be imported"),
        (["--oracle=tests.evaluation.oracles:NUMBER"], "the oracle is no function; found int"),
        (["--oracle="], "who answers the prompts is not clear"),
        (["--rl_only", "--rollouts=nowhere"], "nowhere: no finished run; expected settings.json; found no such file"),
        (["--rl_only", "--checkpoint="], "--checkpoint is required; expected it, or --rollouts"),
        (["--rl_only", "--beta=900", "--tau=8"], f"problem a: longer than the context; expected at most {CONTEXT} tok"),
    ],
)
def test_mistaken_flags(roomy, tmp_path, flags, said):
    refused(roomy, tmp_path, write_sums(tmp_path / "p.jsonl", "a", "b"), flags, said)
    assert not (tmp_path / "out").exists()


def refused(roomy, tmp_path, problems, flags, said):
    given = [f"--checkpoint={roomy}", f"--problems={problems}", f"--output={tmp_path / 'out'}", *FLAGS, *flags]
    code, out, err = run("make_aggregation_data", *given)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, out) == (2, "") and len(errors) == 1 and said in errors[0], err


def test_mistaken_files(roomy, tmp_path, make, scripted):
    (tmp_path / "empty.jsonl").write_text("")
    refused(roomy, tmp_path, tmp_path / "empty.jsonl", ["--rl_only"], "empty.jsonl: is empty")
    sums = write_sums(tmp_path / "p.jsonl", "a", "b")
    other = shutil.copytree(roomy, tmp_path / "other")
    write_checkpoint(other, template=CHATML)
    refused(roomy, tmp_path, sums, [f"--teacher={other}"], f"{other}: the teacher has another tokenizer; expected that")
    flags = [f"--teacher={roomy}", "--teacher_beta=500"]
    refused(roomy, tmp_path, sums, flags, "problem a: longer than the teacher's context; expected at most 512 tokens")
    first, _ = make()
    changed = write(tmp_path / "changed.jsonl", INTEGER | {"id": "a"})
    old = [f"--rollouts={first / 'rollouts'}", "--rl_only"]
    said = "rollouts/candidates.jsonl, line 1: problem a: the problem has changed since it was searched"
    refused(roomy, tmp_path / "x", changed, old, said)
    answer = write(tmp_path / "answer.jsonl", *(row | {"answer": 41} for row in read(sums)))
    refused(roomy, tmp_path / "x", answer, old, said)
    stranger = write_sums(tmp_path / "stranger.jsonl", "z")
    refused(roomy, tmp_path / "x", stranger, old, "not a problem of the run; expected z; found no such problem")
    refused(
        roomy, tmp_path / "x", sums, [*old, "--n=5"], "n: more than the rollouts that are there; expected at most 4"
    )
    refused(roomy, tmp_path / "x", sums, [*old, "--beta=30"], "beta: not that of the rollouts; expected 20; found 30")
    oracle = "--oracle=tests.evaluation.oracles:"
    failed = "problem b, draw 0: the oracle failed; found ValueError: no idea"
    refused(roomy, tmp_path / "y", sums, [old[0], f"{oracle}fails"], failed)
    silent = "problem a, draw 0: the oracle gave no text; expected a text of reasoning and answer; found ' '"
    refused(roomy, tmp_path / "z", sums, [old[0], f"{oracle}silent"], silent)
    rows = (first / "rollouts/candidates.jsonl").read_text().splitlines(keepends=True)
    (first / "rollouts/candidates.jsonl").write_text("".join(rows[:-1]))
    refused(roomy, tmp_path / "x", sums, old, "an unfinished run; found none for b, rollout 3; finish it with")


def test_a_mix_needs_answers(make, scripted):
    first, _ = make()
    settings = json.loads((first / "rollouts/settings.json").read_text())
    (first / "rollouts/settings.json").write_text(json.dumps(settings | {"t": 2}))
    rows = read(first / "rollouts/candidates.jsonl")
    write(first / "rollouts/candidates.jsonl", *(row | {"correct": None} for row in rows))
    with pytest.raises(
        UserError, match="problem a: a mix of rollouts that gave no answers; take rollouts with answers"
    ):
        make("second", rollouts=first / "rollouts", rl_only=True, mix={"mixed": 1.0})
    second, summary = make("second", rollouts=first / "rollouts", rl_only=True)
    assert "not known" in summary
    assert {row["meta"]["aggregation"]["correct"] for row in read(second / "rl.jsonl")} == {None}


def test_the_page_of_docs_names_real_flags(root):
    """Every flag in docs/markovian_rsa.md is one of these commands."""
    page = (root / "docs/markovian_rsa.md").read_text(encoding="utf-8")
    helps = [launch(name, "--help")[1] for name in ("evaluate", "markovian_rsa", "make_aggregation_data")]
    there = set(re.findall(r"^  --(\w+):", "\n".join(helps), re.MULTILINE))
    others = {"run", "validate", "kind"}  # of rsa_report and data
    assert set(re.findall(r"--(\w+)", page)) - others <= there
    for name, shown in zip(("evaluate", "markovian_rsa", "make_aggregation_data"), helps):
        own = set(re.findall(r"^  --(\w+):", shown, re.MULTILINE)) | {"help"}
        for command in re.findall(rf"experiments\.{name} ((?:.*\\\n)*.*)", page):
            assert set(re.findall(r"--(\w+)", command.split("`")[0])) <= own, command
