"""`experiments.report`: a page from runs on disk."""

from tests.experiments.in_process import run
from tests.experiments.launching import launch
from tests.report.pages import whole_run, write_run


def test_pages(tmp_path):
    first, second = (write_run(tmp_path / name, whole_run(5)) for name in "ab")
    output = tmp_path / "out" / "two.html"
    code, out, err = run("report", f"--workdir={first}", f"--workdir={second}", f"--output={output}")
    assert (code, out, err) == (0, f"{output}\n", "")
    assert "Training: 2 runs" in output.read_text()


def test_a_mistake_is_one_line(tmp_path):
    code, out, err = run("report", f"--workdir={tmp_path}")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {tmp_path}: has no metrics.jsonl; ") and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_launcher(tmp_path):
    directory = write_run(tmp_path / "a", whole_run(5))
    code, out, err = launch("report", f"--workdir={directory}")
    assert (code, out, err) == (0, f"{directory}/report.html\n", "")
