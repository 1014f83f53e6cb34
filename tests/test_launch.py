"""The launcher's manners: help with an example, mistakes in one line with exit code 2, nothing else on stderr."""

import os
import subprocess
import sys

import pytest

ENDINGS = "<good|mistake|bug|interrupt|warning|pipe>"
LAUNCHER = '''"""Adds one.

Example:
    python tiny.py --number=1
"""
from absl import flags, logging
from experiments import launch
from zaya_jax.errors import UserError

NUMBER = flags.DEFINE_integer("number", None, "What to add one to.", required=True)
ENDING = flags.DEFINE_enum("ending", "good", ["good", "mistake", "bug", "interrupt", "warning", "pipe"], "How it ends.")


def main(argv):
    logging.info("not for the user")
    if ENDING.value == "mistake":
        raise UserError("weights.json: key missing;\\nexpected a")
    if ENDING.value == "bug":
        raise ValueError("a bug")
    if ENDING.value == "interrupt":
        raise KeyboardInterrupt
    if ENDING.value == "pipe":
        raise BrokenPipeError
    if ENDING.value == "warning":
        import warnings
        warnings.warn("careful,\\nplease")
    import jax
    print(NUMBER.value + 1, jax.config.jax_compilation_cache_dir)


if __name__ == "__main__":
    launch.run(main)
'''


@pytest.fixture
def launch(root, tmp_workdir):
    """Runs a tiny launcher with the given flags; returns its exit code, stdout and stderr."""
    (tmp_workdir / "tiny.py").write_text(LAUNCHER)

    def run(*flags, **environment):
        environment = os.environ | {"PYTHONPATH": str(root)} | environment
        done = subprocess.run([sys.executable, "tiny.py", *flags], env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return run


def test_help_shows_the_example_and_the_launchers_own_flags(launch):
    code, out, err = launch("--help")
    assert (code, err) == (0, "")
    assert "python tiny.py --number=1" in out
    assert "--number: What to add one to. (required)" in out
    assert f"--ending: {ENDINGS}: How it ends. (default: 'good')" in out
    assert "--debug" in out and "--compile_cache_dir" in out
    assert "--verbosity" not in out


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--nubmer=1"], "unknown flag --nubmer; did you mean --number?"),
        (["--qqqqqqqq"], "unknown flag --qqqqqqqq; see --help"),
        ([], "flag --number is required; --help shows an example"),
        (["--number"], "Missing value for flag --number"),
        (["--number=one"], "flag --number=one: invalid literal for int() with base 10: 'one'"),
        (
            ["--number=1", "--ending=god"],
            "flag --ending=god: value should be one of <good|mistake|bug|interrupt|warning|pipe>",
        ),
        (["--number=1", "2"], "unexpected argument '2'; values are given as --name=value, see --help"),
        (["--number=1", "--ending=mistake"], "weights.json: key missing; expected a"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(launch, flags, line):
    assert launch(*flags) == (2, "", f"error: {line}\n")


def test_debug_adds_the_traceback(launch):
    code, _, err = launch("--number=1", "--ending=mistake", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("error: weights.json: key missing; expected a\n")


def test_a_bug_keeps_its_traceback(launch):
    code, _, err = launch("--number=1", "--ending=bug")
    assert code == 1
    assert err.rstrip().endswith("ValueError: a bug")


def test_an_interrupt_is_quiet(launch):
    assert launch("--number=1", "--ending=interrupt") == (130, "", "")


def test_a_warning_is_one_line(launch):
    code, _, err = launch("--number=1", "--ending=warning")
    assert (code, err) == (0, "warning: careful, please\n")


def test_a_reader_who_has_seen_enough_is_no_error(launch):
    code, _, err = launch("--number=1", "--ending=pipe")
    assert (code, err) == (1, "")


@pytest.mark.parametrize(
    ("flags", "environment", "directory"),
    [
        ([], {"JAX_COMPILATION_CACHE_DIR": "/from/environment"}, "/from/environment"),
        (["--compile_cache_dir=~/here"], {"HOME": "/home/someone"}, "/home/someone/here"),
        (["--compile_cache_dir="], {}, "None"),
    ],
)
def test_compiled_programs_are_kept_where_asked(launch, flags, environment, directory):
    assert launch("--number=1", *flags, **environment) == (0, f"2 {directory}\n", "")
