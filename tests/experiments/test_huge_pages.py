"""Large pages are asked for where that helps, once, and nobody's own choice is overruled."""

import os
import subprocess
import sys

import pytest

from experiments.huge_pages import needed

ASK = "always [madvise] never\n"
COMMAND = """
import os, sys
from absl import app
from experiments import huge_pages

huge_pages._MODE = __import__("pathlib").Path({mode!r})
print("started", flush=True)
huge_pages.use()
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], flush=True)
"""


@pytest.mark.parametrize(
    "environment, mode, libc, expected",
    [
        ({}, ASK, "glibc 2.36", True),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=0"}, ASK, "glibc 2.36", True),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, ASK, "glibc 2.36", False),
        ({}, "[always] madvise never\n", "glibc 2.36", False),
        ({}, "always madvise [never]\n", "glibc 2.36", False),
        ({}, "", "glibc 2.36", False),
        ({}, ASK, "glibc 2.35", True),
        ({}, ASK, "glibc 2.34", False),
        ({}, ASK, "glibc 3.0", True),
        ({}, ASK, "", False),
    ],
)
def test_when_they_are_needed(environment, mode, libc, expected):
    assert needed(environment, mode, libc) is expected


def run(root, tmp_path, mode, **environment):
    (tmp_path / "mode").write_text(mode)
    (tmp_path / "command.py").write_text(COMMAND.format(mode=str(tmp_path / "mode")))
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | environment
    command = [sys.executable, str(tmp_path / "command.py"), "a b"]
    with subprocess.Popen(
        command, env=environment | {"PYTHONPATH": str(root)}, stdout=subprocess.PIPE, text=True
    ) as process:
        out, _ = process.communicate()
        return out.splitlines(), process.pid


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="huge pages through glibc are Linux's")
def test_a_command_starts_once_more_in_the_same_process(root, tmp_path):
    lines, pid = run(root, tmp_path, ASK)
    assert lines == ["started", "started", f"{pid} glibc.malloc.hugetlb=1 ['a b']"]
    lines, pid = run(root, tmp_path, ASK, GLIBC_TUNABLES="glibc.malloc.tcache_count=7")
    assert lines[2] == f"{pid} glibc.malloc.tcache_count=7:glibc.malloc.hugetlb=1 ['a b']"
    lines, pid = run(root, tmp_path, "[always] madvise never\n")
    assert lines == ["started", f"{pid} None ['a b']"]
