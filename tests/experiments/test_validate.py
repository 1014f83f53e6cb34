"""The report of `validate`: whatever a section does, the others run and the files are whole."""

import json

import pytest

from experiments.validation import checks, sections
from experiments.validation.checks import Found
from experiments.validation.sections import Report, check, run
from zaya_jax.errors import UserError


def fine(repeats):
    yield Found("OK", f"{repeats} times", text="| a table |", data={"x": 1})


def broken(repeats):
    yield Found("OK", "until here")
    raise RuntimeError("it broke\nand more")


def absent(repeats):
    yield Found("not run", "no GPU")


@pytest.fixture
def three(monkeypatch):
    monkeypatch.setattr(sections, "SECTIONS", {"fine": fine, "broken": broken, "absent": absent})


def test_what_breaks_a_section_is_a_line_of_it(three, tmp_path):
    report = Report()
    lines = [line for name in ("broken", "fine", "absent") for line in run(name, report, 3)]
    assert lines == [
        "== broken",
        "OK       until here",
        "FAIL     RuntimeError: it broke",
        "== fine",
        "OK       3 times\n| a table |",
        "== absent",
        "not run  no GPU",
    ]
    assert report.failed
    check([], tmp_path / "new")
    files = report.write(tmp_path / "new")
    assert [file.name for file in files] == ["validation.json", "validation.md"]
    found = json.loads(files[0].read_text())
    assert found["fine"]["data"] == {"x": 1} and found["broken"]["rows"][1]["outcome"] == "FAIL"
    text = files[1].read_text()
    assert "| FAIL | RuntimeError: it broke |" in text and "| a table |" in text
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["validation.json", "validation.md"]


def test_what_was_not_run_is_no_failure(three):
    report = Report()
    list(run("absent", report, 1))
    assert not report.failed


def test_unknown_sections_are_named(tmp_path):
    with pytest.raises(UserError, match=r"--sections.*expected.*kernels.*found.*speed"):
        check(["kernels", "speed"], tmp_path)


def test_a_place_that_is_taken_is_named_before_anything_runs(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=r"--output=.*taken: no place for the reports"):
        check(["kernels"], tmp_path / "taken")


@pytest.mark.slow
@pytest.mark.parametrize("check", [checks.training, checks.decoding, checks.model_on_kernels])
def test_the_checks_pass(check):
    found = list(check(1))
    assert found and all(line.outcome == "OK" for line in found), found


@pytest.mark.slow
def test_kernels_pass():
    *found, last = checks.kernels(1)
    assert len(found) == 36 and all(line.outcome == "OK" for line in found), found
    assert last.outcome == "not run"


def test_wrong_logits_fail(monkeypatch):
    from tests.parity import committed

    def doubled(path, read=committed.read):
        golden, *rest = read(path)
        return golden | {"logits": 2 * golden["logits"]}, *rest

    monkeypatch.setattr(committed, "read", doubled)
    assert next(checks.goldens(1)).outcome == "FAIL"
