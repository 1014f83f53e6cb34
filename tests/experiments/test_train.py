"""The launcher of training: mistakes on its command line, and the configurations that come with the project."""

import pytest

from tests.experiments.launching import launch

PHASE1 = "configs/pretrain/phase1.py"


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "--config is required"),
        (["--config=configs/nothing.py"], "--config: cannot be read"),
        ([f"--config={PHASE1}:scal=nano"], "did you mean scale?"),
        ([f"--config={PHASE1}:scale=huge"], "unknown scale; expected nano, small, 8b; found huge"),
        ([f"--config={PHASE1}:runlocal", "--config.row=3"], 'Did you mean "rows"'),
        ([f"--config={PHASE1}:runlocal", "--config.nothing.here=3"], "--config: unknown key nothing"),
        ([f"--config={PHASE1}:runlocal", "--config.rows=x"], "invalid literal for int()"),
        (
            [f"--config={PHASE1}:runlocal", "--config.rows=0"],
            "rows: out of range; expected a positive integer",
        ),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(tmp_path, arguments, said):
    code, _, error = launch("train", f"--workdir={tmp_path / 'run'}", *arguments)
    assert code == 2, error
    (line,) = error.splitlines()
    assert line.startswith("error: ") and said in line
    assert not (tmp_path / "run").exists()
