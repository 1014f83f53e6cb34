"""docs/environments.md: its code runs, its tables name what there is."""

import dataclasses
import json
import re

import pytest

from zaya_jax.environments.environment import Environment, Problem, Verdict
from zaya_jax.environments.failures import KINDS
from zaya_jax.environments.named import FORMS
from zaya_jax.environments.validate import validate
from zaya_jax.rl.scheduling import Schedule
from zaya_jax.train.settings import from_dict


@pytest.fixture
def page(root):
    return (root / "docs" / "environments.md").read_text(encoding="utf-8")


@pytest.fixture
def blocks(page, tmp_path, monkeypatch):
    """The two blocks of Python; the first is the file that it says it is."""
    own, use = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "my_tasks.py").write_text(own)
    monkeypatch.syspath_prepend(tmp_path)
    return own, use


def test_ones_own_is_short_and_keeps_the_contract(blocks):
    assert len(blocks[0].strip().splitlines()) <= 25
    findings = validate("my_tasks:make")
    assert [finding for finding in findings if finding.sound is not True] == []


def test_the_example_of_workers_runs(blocks, capsys):
    exec(compile(blocks[1], "docs/environments.md", "exec"), {})
    assert capsys.readouterr().out == "0.0\n1.0\n"


def test_the_sources_of_a_run_are_read(page):
    (found,) = re.findall(r"--config\.schedule\.sources=(\[.*\])'", page)
    schedule = from_dict(Schedule, {"sources": json.loads(found)})
    assert schedule.names == ("my_tasks:make", "rlve:Sorting@/path/to/RLVE") and schedule.sources[1].start == 3


def test_tables_name_every_field_kind_and_form(page):
    contract = page.partition("## The contract")[2].partition("## One's own")[0]
    rows = set(re.findall(r"^\| `(\w+)` \|", contract, re.MULTILINE))
    assert rows == {field.name for kind in (Environment, Problem, Verdict) for field in dataclasses.fields(kind)}
    workers = page.partition("## In workers")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", workers, re.MULTILINE) == list(KINDS)
    named = page.partition("## What can be named")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(.+?)` \|", named, re.MULTILINE) == ["NAME", *FORMS]


def test_every_flag_of_a_command_is_one(page, root):
    launcher = (root / "experiments" / "environments.py").read_text(encoding="utf-8")
    flags = set(re.findall(r'flags\.DEFINE_\w+\("(\w+)"', launcher))
    commands = re.findall(r"^python -m experiments\.environments(.*)$", page, re.MULTILINE)
    assert len(commands) == 3
    assert {flag for command in commands for flag in re.findall(r"--(\w+)", command)} <= flags
