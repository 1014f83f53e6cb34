"""Running a cascade: stand-ins for the stages, killed, stopped, failing; nothing is done twice and nothing is lost."""

import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.evaluation.searching import write_roomy
from zaya_jax.errors import UserError
from zaya_jax.report.cascade import write_cascade
from zaya_jax.rl.cascade import CascadeConfig
from zaya_jax.rl.stages import Stage
from zaya_jax.rl.stages_run import finished, run

# Makes `steps` steps, each a line of the trace, a while apart, and then a model. It goes on behind what it has made,
# and stops between two steps when it is asked to. It says nothing in between, so that nobody's death disturbs it.
STAND_IN = """
import os, pathlib, shutil, signal, sys, time
name, workdir, initial, trace, steps, code = sys.argv[1:]
workdir = pathlib.Path(workdir)
workdir.mkdir(exist_ok=True)
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
done = workdir / "steps"
first = int(done.read_text()) if done.exists() else 0
print(name, "begins with", initial, "after", first, flush=True)
assert (pathlib.Path(initial) / "config.json").is_file()
for step in range(first + 1, int(steps) + 1):
    time.sleep(float(os.environ.get("STEP_SECONDS", "0.1")))
    with open(trace, "a") as file:
        file.write(f"{name} {step}\\n")
    done.write_text(str(step))
    if asked:
        print("stopped after step", step)
        sys.exit(0)
if code.isdecimal() and int(code):
    sys.exit(int(code))
if code == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if code != "nothing":
    shutil.copytree(initial, workdir / ".model", dirs_exist_ok=True)
    (workdir / ".model").rename(workdir / "model")
"""
STEPS, NAMES = 4, ("a", "b", "c")


@pytest.fixture(scope="module")
def initial(tmp_path_factory):
    return write_roomy(tmp_path_factory.mktemp("initial") / "model")


@pytest.fixture
def cascade(initial, tmp_path, monkeypatch):
    """The plan of three stages, each from the last one's model, and its directory."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "standing_in.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "modules"), os.environ.get("PYTHONPATH", "")]))
    return make_plan(initial, tmp_path), tmp_path / "cascade"


def make_plan(initial, tmp_path, **codes) -> list[Stage]:
    plan, model = [], initial
    for name in NAMES:
        workdir = tmp_path / "cascade" / name
        arguments = (name, str(workdir), str(model), str(tmp_path / "trace"), str(STEPS), codes.get(name, "0"))
        plan.append(Stage(name, name.upper(), "rl", "standing_in", arguments, str(workdir), ("model",)))
        model = workdir / "model"
    return plan


def traced(workdir) -> list[str]:
    trace = workdir.parent / "trace"
    return trace.read_text().splitlines() if trace.exists() else []


EVERY = [f"{name} {step}" for name in NAMES for step in range(1, STEPS + 1)]


def test_stages_run_in_order_and_once(cascade):
    (plan, workdir), said = cascade, io.StringIO()
    assert run(CascadeConfig(), plan, workdir, said, write_page=write_cascade) == 0
    assert traced(workdir) == EVERY
    lines = said.getvalue().splitlines()
    assert f"[b] b begins with {workdir}/a/model after 0" in lines, "what a stage says has its name in front"
    assert (workdir / "logs" / "b.log").read_text() == f"b begins with {workdir}/a/model after 0\n"
    assert lines[-1].startswith("done: all 3 stages") and (workdir / "report.html").is_file()
    assert run(CascadeConfig(), plan, workdir, io.StringIO(), write_page=write_cascade) == 0
    assert traced(workdir) == EVERY, "what is finished is not run again"


_CHILD = """
import json, pathlib, sys
from zaya_jax.report.cascade import write_cascade
from zaya_jax.rl.cascade import CascadeConfig
from zaya_jax.rl.stages import Stage
from zaya_jax.rl.stages_run import run
plan = [Stage(**{**one, "arguments": tuple(one["arguments"]), "products": tuple(one["products"])})
        for one in json.loads(sys.argv[1])]
sys.exit(run(CascadeConfig(), plan, pathlib.Path(sys.argv[2]), write_page=write_cascade))
"""


def start(plan, workdir, root) -> subprocess.Popen:
    stages = json.dumps([vars(stage) for stage in plan])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(root)])}
    command = [sys.executable, "-c", _CHILD, stages, str(workdir)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd=root)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [2, STEPS, 2 * STEPS + 1])
def test_killed_at_a_boundary_or_inside_a_stage_it_goes_on(cascade, root, steps, monkeypatch):
    """The stage that was under way may outlive the cascade for a while: the next one waits for it."""
    plan, workdir = cascade
    monkeypatch.setenv("STEP_SECONDS", "0.7")
    child = start(plan, workdir, root)
    while child.poll() is None and len(traced(workdir)) < steps:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it was killed on its way"
    assert run(CascadeConfig(), plan, workdir, io.StringIO(), write_page=write_cascade) == 0
    assert traced(workdir) == EVERY and all(finished(stage) for stage in plan)


def test_a_signal_is_passed_on(cascade):
    (plan, workdir), said = cascade, io.StringIO()

    def ask():
        while "b 1" not in traced(workdir):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    assert run(CascadeConfig(), plan, workdir, said, write_page=write_cascade) == 0
    asking.join()
    assert "[b] stopped after step" in said.getvalue(), "the stage heard it, and ended in its own way"
    assert said.getvalue().splitlines()[-1].startswith("stopped in stage b; the same command goes on")
    made = len(traced(workdir))
    assert STEPS < made < 2 * STEPS and not (workdir / "c").exists()
    assert run(CascadeConfig(), plan, workdir, io.StringIO(), write_page=write_cascade) == 0
    assert traced(workdir) == EVERY


@pytest.mark.parametrize("code, handed_on", [("3", 3), ("killed", 137)])
def test_a_failing_stage_ends_it(cascade, initial, tmp_path, capsys, code, handed_on):
    _, workdir = cascade
    plan = make_plan(initial, tmp_path, b=code)
    assert run(CascadeConfig(), plan, workdir, io.StringIO(), write_page=write_cascade) == handed_on
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: stage b failed with exit code {handed_on}; see {workdir}/logs/b.log; alone: ")
    assert line.endswith(plan[1].command) and plan[1].command.startswith("python -m standing_in b ")
    assert traced(workdir) == EVERY[: 2 * STEPS] and not (workdir / "c").exists()


def test_a_stage_that_makes_nothing_is_an_error(cascade, initial, tmp_path):
    plan = make_plan(initial, tmp_path, a="nothing")
    with pytest.raises(UserError, match="stage a: ended without what it makes; expected model; see"):
        run(CascadeConfig(), plan, cascade[1], io.StringIO(), write_page=write_cascade)


def test_a_damaged_model_is_not_finished(cascade):
    plan, workdir = cascade
    assert run(CascadeConfig(), plan[:1], workdir, io.StringIO(), write_page=write_cascade) == 0 and finished(plan[0])
    (weights,) = (workdir / "a" / "model").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    assert not finished(plan[0])
    shutil.rmtree(workdir / "a" / "model")
    (workdir / "a" / "model").mkdir()
    assert not finished(plan[0])


def test_a_file_is_finished_when_there_is_something_in_it(tmp_path):
    stage = Stage("data", "Data", "data", "x", (), str(tmp_path), ("one.jsonl", "two.jsonl"))
    for name, content, done in (("one.jsonl", "{}\n", False), ("two.jsonl", "", False), ("two.jsonl", "{}\n", True)):
        (tmp_path / name).write_text(content)
        assert finished(stage) == done


def test_a_directory_is_of_one_cascade(cascade):
    plan, workdir = cascade
    assert run(CascadeConfig(), plan[:1], workdir, io.StringIO(), write_page=write_cascade) == 0
    with pytest.raises(UserError, match="the directory of another run; found seed: 0 -> 1"):
        run(CascadeConfig(seed=1), plan, workdir, io.StringIO(), write_page=write_cascade)
    assert run(CascadeConfig(seed=1), plan[:1], workdir, io.StringIO(), free=("seed",)) == 0


def test_the_plan_is_written_with_relative_directories(cascade):
    plan, workdir = cascade
    run(CascadeConfig(), plan[:1], workdir, io.StringIO(), write_page=write_cascade)
    (stage,) = json.loads((workdir / "stages.json").read_text())["stages"]
    assert stage["workdir"] == "a" and stage["command"] == plan[0].command
    assert pathlib.Path(plan[0].workdir) == workdir / "a"
