"""The command around the compiler: comparison, page, mistakes. A compiler of its own stands in for XLA:ROCm here."""

import json
import re

import pytest

from experiments.rocm import checks, compiling, page
from experiments.rocm.figures import Figures, drift
from experiments.rocm.programs import CONFIG, PROGRAMS
from tests.experiments.launching import launch
from zaya_jax.errors import UserError

HEAVY = 3 * 10**9


def figures(program, seconds=3.0, temporary=10**9):
    kernels = dict.fromkeys(sorted(checks.EXPECTED[program.task]), 1)
    collectives = {"all-gather": 5} if program.devices > 1 else {}
    peak = 2 * 10**9 if program.task == "experts" else HEAVY
    return Figures(seconds, 2 * 10**9, 10**8, temporary, 0, peak, kernels, {"__cublas$lt$matmul": 2}, 7, collectives)


@pytest.fixture
def compiler(monkeypatch):
    """What it answers for each program: figures, or an error; the text is empty."""
    answers = {program.name: figures(program) for program in PROGRAMS.values()}

    def measure(name):
        if isinstance(answers[name], Exception):
            raise answers[name]
        return answers[name], ""

    monkeypatch.setattr(compiling, "lower", lambda program: program.name)
    monkeypatch.setattr(compiling, "measure", measure)
    monkeypatch.setattr(compiling.importlib.metadata, "version", lambda name: "0.0")
    return answers


def run(tmp_path, *names, update=False):
    return compiling.run(names, str(tmp_path / "page.md"), str(tmp_path / "figures.json"), update, None)


def test_update_writes_both_and_the_next_run_agrees(compiler, tmp_path, capsys):
    assert run(tmp_path, update=True) == 0
    written = json.loads((tmp_path / "figures.json").read_text())
    assert set(written) == set(PROGRAMS) and "seconds" not in written["train_1x4096"]
    assert run(tmp_path) == 0
    assert capsys.readouterr().out.count(f"{len(PROGRAMS)} of {len(PROGRAMS)} compiled, 0 failures. Nothing here") == 2
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["figures.json", "page.md"]


def test_drift_and_a_program_that_does_not_compile_are_failures(compiler, tmp_path, capsys):
    run(tmp_path, update=True)
    before = (tmp_path / "page.md").read_text()
    compiler["train_1x4096"] = figures(PROGRAMS["train_1x4096"], temporary=2 * 10**9)
    compiler["prefill_1x4096"] = ValueError("no such\n  layout")
    assert run(tmp_path) == 1
    out = capsys.readouterr().out
    assert "  FAIL temporary 2,000,000,000, was 1,000,000,000\n" in out
    assert "  FAIL is not compiled: no such layout\n" in out
    assert f"{len(PROGRAMS) - 1} of {len(PROGRAMS)} compiled, 2 failures" in out
    assert (tmp_path / "page.md").read_text() == before


def test_some_programs_only_leave_the_page(compiler, tmp_path):
    run(tmp_path, update=True)
    (tmp_path / "page.md").unlink()
    assert run(tmp_path, "train_1x4096") == 0
    assert not (tmp_path / "page.md").exists()


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match=r"--programs: unknown program; expected prefill_1x4096, .*; found train"):
        run(tmp_path, "train")
    with pytest.raises(UserError, match=r"figures.json: no committed figures; found .*; --update writes them"):
        run(tmp_path)


def test_without_the_wheels_it_is_one_line():
    code, out, err = launch("rocm_aot")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: XLA:ROCm is not installed; .*`make rocm-aot` sets up an environment\n", err)


def test_drift_is_told_of_every_figure():
    before = figures(PROGRAMS["train_1x4096"]).to_json()
    assert drift(before, before) == []
    assert drift(before | {"temporary": 1_049_000_000}, before) == []
    assert drift(before | {"temporary": 1_051_000_000}, before) == ["temporary 1,051,000,000, was 1,000,000,000"]
    assert drift(before | {"collectives": {"all-reduce": 1}}, before) == ["collectives all-reduce 1, was 0"]
    assert drift(before | {"library_calls": {}}, before) == ["library_calls __cublas$lt$matmul 0, was 2"]
    assert drift(before, None) == ["no committed figures: run with --update"]


def test_the_page_has_a_row_a_program_and_says_what_it_is_not():
    found = {program: figures(program) for program in PROGRAMS.values()}
    text = page.page(CONFIG, found, {"jax": "1.2.3"}, "figures.json", 2**30)
    assert "| decode, 64 x 1, cache 8,192 | 8 | 2.00 | 0.10 | 0.00 | 1.00 | 3.00 | **no** |" in text
    assert "| prefill, 1 x 4,096 | 1 | attention 1, cca_mix 1, grouped_matmul 1, grouped_swiglu 1 |" in text
    assert "| __cublas$lt$matmul 2 | 7 | all-gather 5 |" in text
    assert "| 32,768 | float32 | 1,208 | 1,208 | 269 | 2,685 | 2,000 | 0.74 |" in text
    assert "jax 1.2.3" in text and "**Nothing here has run on an MI300X.**" in text


def test_the_committed_figures_are_of_the_programs_and_fine(root):
    committed = json.loads((root / "docs/mi300x.json").read_text(encoding="utf-8"))
    assert set(committed) == set(PROGRAMS)
    text = (root / "docs/mi300x.md").read_text(encoding="utf-8")
    for name, program in PROGRAMS.items():
        found = Figures(seconds=0.0, **committed[name])
        assert checks.problems(CONFIG, program, found, "", compiling.MEMORY) == []
        assert f"| {found.peak / 1e9:.2f} |" in text or program.task == "experts"
