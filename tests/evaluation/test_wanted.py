"""What is asked for: defaults by method, budgets that fit, and flags that would do nothing."""

import dataclasses

import pytest

from experiments.benchmark_requests import torch_options
from tests.environments.rows import CODE, write
from tests.evaluation.made import sample
from tests.evaluation.searching import write_sums
from tests.experiments.in_process import run
from zaya_jax.errors import UserError
from zaya_jax.evaluation.evaluate import grade_again
from zaya_jax.evaluation.samples import SampleWriter
from zaya_jax.evaluation.wanted import Wanted
from zaya_jax.sampling.markovian_rsa import Question
from zaya_jax.sampling.request import Sampling
from zaya_jax.text.aggregation import Pieces

CONTEXT = 131072


def question(name, direct):
    """A problem with a prompt of so many tokens, and 10 more around 4 attempts."""
    return Question(name, Pieces(tuple(range(direct)), ((1,) * direct, *[(2,)] * 3, (3,) * 7), direct), (0,), (1, 2))


QUESTIONS = [question("short", 100), question("long", 300)]


def test_single_answers_have_the_rest_of_the_context():
    settings = Wanted("single").settings("p", QUESTIONS, CONTEXT)
    assert (settings.beta, settings.tau, settings.answer_budget) == (CONTEXT - 300 - 1 - 8192, settings.beta, 8192)
    settings = Wanted("single", answer_budget=1000).settings("p", QUESTIONS, CONTEXT)
    assert settings.beta == CONTEXT - 300 - 1 - 1000
    assert Wanted("single", beta=77).settings("p", QUESTIONS, CONTEXT).beta == 77
    assert Wanted("single", preset="report").settings("aime26", QUESTIONS, 9000).beta == 9000 - 300 - 1 - 8192
    assert Wanted("single", answer_budget=698).settings("p", QUESTIONS, 1000).beta == 1
    with pytest.raises(
        UserError, match=r"problem long: no room for reasoning; .* found 300 of its prompt, and answer_"
    ):
        Wanted("single", answer_budget=699).settings("p", QUESTIONS, 1000)


@pytest.mark.parametrize("method", ["markovian_rsa", "rsa"])
def test_the_answer_has_the_reports_budget(method):
    wanted = Wanted(method, tau=4096)
    settings = wanted.settings("p", QUESTIONS, CONTEXT)
    assert (settings.beta, settings.answer_budget) == (16384, 40960)
    carried = 4 * (16384 if method == "rsa" else 4096)
    room = 300 + 10 + carried + 16384 + 1 + 40960
    assert wanted.settings("p", QUESTIONS, room) == settings
    said = (
        rf"problem long: longer than the context; .*; found {room}, of which 40960 for the answer, .*; lower answer_b"
    )
    with pytest.raises(UserError, match=said):
        wanted.settings("p", QUESTIONS, room - 1)
    assert dataclasses.replace(wanted, answer_budget=9).settings("p", QUESTIONS, CONTEXT).answer_budget == 9


def test_delethink_has_a_chunk():
    settings = Wanted("delethink").settings("p", QUESTIONS, CONTEXT)
    assert (settings.n, settings.chunk, settings.chunks, settings.carry, settings.head) == (16, 16384, 3, 4096, 100)


@pytest.mark.parametrize(
    "method, flags, idle",
    [
        ("single", ["--c=4"], "--c"),
        ("single", ["--t=2", "--tau=8", "--carry=tail", "--parents=own"], "--t, --tau, --parents, --carry"),
        ("single", ["--final_call", "--probe_answers", "--head=3"], "--head, --probe_answers, --final_call"),
        ("single", ["--nofinal_call"], "--final_call"),
        ("single", ["--wording=math"], "--wording"),
        ("delethink", ["--c=4", "--carry=tail", "--parents=own"], "--c, --parents, --carry"),
        ("delethink", ["--final_call", "--probe_answers"], "--probe_answers, --final_call"),
        ("delethink", ["--answer_budget=8"], "--answer_budget"),
        ("rsa", ["--tau=8"], "--tau"),
        ("rsa", ["--head=8"], "--head"),
        ("markovian_rsa", ["--head=100"], "--head"),
    ],
)
def test_flags_that_do_nothing_are_refused(roomy, tmp_path, method, flags, idle):
    given = [f"--checkpoint={roomy}", f"--output={tmp_path / 'out'}", *flags]
    problems = write_sums(tmp_path / "p.jsonl", "a")
    code, out, err = run("evaluate", f"--benchmark={problems}", f"--method={method}", *given)
    said = f"error: {idle}: does nothing with the method {method}; leave it out\n"
    assert (code, out, err) == (2, "", said) and not (tmp_path / "out").exists()
    if method == "markovian_rsa":
        assert run("markovian_rsa", f"--problems={problems}", *given) == (2, "", said)


def test_code_without_isolation_is_graded_anew_only_if_allowed(tmp_path, monkeypatch):
    made = []

    def sandbox(allow_unisolated=False):
        made.append(allow_unisolated)
        return object()

    monkeypatch.setattr("zaya_jax.evaluation.evaluate.Sandbox", sandbox)
    monkeypatch.setattr("zaya_jax.evaluation.grades.judge", lambda problem, answer, *_: (True, None))
    problems = write(tmp_path / "p.jsonl", CODE)
    with SampleWriter(tmp_path / "out/p/samples.jsonl") as writer:
        writer.write(sample("p", benchmark="p", response="</think>```python\nprint(1)\n```"))
    grade_again(str(tmp_path / "out"), [str(problems)], allow_unisolated=True)
    assert made == [True]
    files = [f"--benchmark={problems}", f"--output={tmp_path / 'out'}", "--grade_only"]
    assert run("evaluate", *files)[0] == 0 and made == [True, False]
    assert run("evaluate", *files, "--allow_unisolated")[0] == 0 and made == [True, False, True]


def test_transformers_draws_from_the_distribution_that_we_draw_from():
    ours, theirs = Sampling(), torch_options(7)
    assert theirs["do_sample"] and theirs["max_new_tokens"] == theirs["min_new_tokens"] == 7
    assert (theirs["temperature"], theirs["top_p"]) == (ours.temperature, ours.top_p) == (1, 1)
    assert theirs["top_k"] == 0, "off, as our -1 is"
