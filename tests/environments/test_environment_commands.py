"""What the launcher `environments` prints, and what `--validate` finds in environments that are not sound."""

import io
import json
import os
import subprocess
import sys

import pytest

from tests.environments.own_environments import SUMS
from zaya_jax.environments.commands import check, list_environments, show
from zaya_jax.environments.named import FORMS
from zaya_jax.environments.validate import validate
from zaya_jax.environments.workers import WorkerLimits
from zaya_jax.errors import UserError

OWN = "tests.environments.own_environments"


def test_problems_are_shown_with_their_answers_and_verdicts():
    sink = io.StringIO()
    show(f"{OWN}:sums", difficulty=2, count=2, seed=7, answers=True, sink=sink)
    first, second = (SUMS.generate(seed, 2) for seed in (7, 8))
    shown = sink.getvalue()
    assert shown.index(first.prompt) < shown.index(f"answer: {first.hidden['answer']}") < shown.index(second.prompt)
    assert shown.count("verdict: Verdict(reward=1.0, correct=True") == 2 and "sums/2/8" in shown


def test_answers_are_shown_only_if_asked_for_and_where_there_are_any():
    plain, hostile = io.StringIO(), io.StringIO()
    show(f"{OWN}:sums", 2, 2, 7, sink=plain)
    assert "answer" not in plain.getvalue()
    show(f"{OWN}:hostile", 0, 1, 3, answers=True, sink=hostile)
    assert "(the environment explains nothing)\nhidden: {'seed': 3}" in hostile.getvalue()


def test_what_fails_while_it_is_shown_is_one_line():
    with pytest.raises(UserError, match=r"seed 0, difficulty 1: .*:hostile failed; found type: generate gave NoneType"):
        show(f"{OWN}:hostile", 1, 1, 0, sink=io.StringIO())


def test_a_sound_environment_passes_every_check():
    sink = io.StringIO()
    check(f"{OWN}:sums", sink=sink)
    assert sink.getvalue().count("  ok  ") == len(sink.getvalue().splitlines()) == 9


@pytest.mark.parametrize("name", ["requests", "simple_instructions", "program_input", "knights"])
def test_our_own_families_pass(name):
    found = validate(name, difficulties=(0, 2), seeds=3)
    assert [finding for finding in found if finding.sound is False] == [] and len(found) == 9


def test_a_file_of_chat_passes(tmp_path):
    rows = [{"id": f"r{i}", "problem": f"say {i}", "kind": "chat"} for i in range(8)]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = validate(f"file:{tmp_path / 'chat.jsonl'}", difficulties=(0,), seeds=4)
    assert [finding for finding in found if finding.sound is False] == []
    assert "junk does not raise" in {finding.check for finding in found}


def test_every_flaw_of_an_unsound_one_is_found():
    found = {finding.check: finding for finding in validate(f"{OWN}:odd")}
    assert {check for check, finding in found.items() if finding.sound is False} == {
        "the same problem in another process and order",
        "seeds differ",
        "the explained answer of another problem is wrong",
        "an empty answer is wrong",
        "junk is wrong, and does not raise",
    }
    assert found["a problem of every seed and difficulty"].sound and found["the explained answer is right"].sound
    with pytest.raises(UserError, match=r"odd: does not keep the contract; expected .*an empty answer is wrong"):
        check(f"{OWN}:odd", sink=io.StringIO())


def test_generators_and_verifiers_that_fail_are_found_with_the_first_failure():
    found = {finding.check: finding for finding in validate(f"{OWN}:hostile", limits=WorkerLimits(seconds=2))}
    problems = found["a problem of every seed and difficulty"]
    assert problems.sound is False
    assert problems.detail == "seed 0, difficulty 1: type: generate gave NoneType, not a Problem"
    assert found["junk is wrong, and does not raise"].sound is False  # it knows no such misdeed
    assert "raised: KeyError" in found["junk is wrong, and does not raise"].detail
    assert found["the explained answer is right"].sound is None


def test_what_there_is_is_listed():
    sink = io.StringIO()
    list_environments(sink)
    assert all(form in sink.getvalue() for form in FORMS)


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        ([f"--environment={OWN}:sums", "--count=1", "--difficulty=1"], 0, "--- sums/1/0", ""),
        ([f"--validate={OWN}:odd"], 2, "WRONG", "error: tests.environments.own_environments:odd: does not keep"),
        (["--environment=nothing:at_all"], 2, "", "error: environment nothing:at_all: no module 'nothing'"),
    ],
)
def test_the_launcher(root, arguments, code, out, err):
    command = [sys.executable, "-m", "experiments.environments", *arguments]
    done = subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr[: len(err)]) == (code, err) and out in done.stdout
    assert done.stderr.count("\n") == (code > 0)
