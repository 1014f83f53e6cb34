"""Launchers run within the test's process: the same path as `python -m experiments.NAME`, without its start."""

import contextlib
import io
import runpy
import sys

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS


def run(name: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a launcher."""
    argv, out, err = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = [name, *map(str, arguments)]
    try:
        with _own_flags(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = _exit_code(name)
    finally:
        sys.argv = argv
    return code, out.getvalue(), err.getvalue()


def _exit_code(name: str) -> int:
    main = runpy.run_module(f"experiments.{name}")["main"]
    try:
        launch.run(main)
    except SystemExit as end:
        return end.code or 0
    raise AssertionError("a launcher ends the process")


@contextlib.contextmanager
def _own_flags():
    """Forgets the flags of a launcher behind it: each defines --checkpoint or --output anew."""
    before = set(FLAGS)
    try:
        yield
    finally:
        for flag in set(FLAGS) - before - _ABSL:
            delattr(FLAGS, flag)


_ABSL = {"help", "helpshort", "helpfull", "helpxml"}  # defined once, by the first run
