"""The repository's own rules: arrows, sizes, packaging, launchers."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INSTALLED = ("zaya_jax", "kernels_pallas")
LIBRARY = [path for package in INSTALLED for path in sorted((ROOT / package).rglob("*.py"))]
# In experiments, but nobody's command.
HELPERS = {
    "__init__.py",
    "launch.py",
    "huge_pages.py",
    "benchmark_answer.py",
    "benchmark_engines.py",
    "benchmark_requests.py",
    "benchmark_shared.py",
    "benchmark_waves.py",
    "search_flags.py",
}
LAUNCHERS = [path for path in sorted((ROOT / "experiments").glob("*.py")) if path.name not in HELPERS]
# Launchers allowed to be longer than a flag list and one call, with their limit.
LONGER_LAUNCHERS: dict[str, int] = {}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_imports_follow_the_arrows():
    code = "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache', '--no-logo'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_library_file_is_two_rooms():
    assert {name(path): lines(path) for path in LIBRARY if lines(path) > 500} == {}


def test_every_library_folder_is_a_package():
    # One that is not would be left out of an installation, and out of the arrows.
    assert [name(path.parent) for path in LIBRARY if not (path.parent / "__init__.py").exists()] == []


@pytest.mark.parametrize("path", LAUNCHERS, ids=name)
def test_launchers_are_short_and_show_an_example(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert f"python -m experiments.{path.stem}" in docstring
    assert lines(path) < LONGER_LAUNCHERS.get(path.name, 60)


@pytest.mark.parametrize("command", ["make run", "make test"])
def test_readme_gives_the_two_commands_and_make_knows_them(command):
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_pinned_versions_cover_what_setup_asks_for():
    required = set(re.findall(r'"([a-z][a-z0-9-]*)(?:\[\w+\])?[>=]=', (ROOT / "setup.py").read_text(encoding="utf-8")))
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    accelerators = {"jax-rocm7-plugin", "jax-rocm7-pjrt", "triton"}  # not for everybody, pinned in setup.py
    assert required - accelerators <= {package.lower().replace("_", "-") for package in pinned}
