"""The examples of docs/serving.md, run."""

import dataclasses
import re
import shutil
import subprocess

import pytest

from tests.serving.served import OPTIONS, listening
from zaya_jax.serving.app import _PATHS
from zaya_jax.serving.server import make_service

pytest.importorskip("openai", reason='needs the extra "serve-test"')


@pytest.fixture(scope="module")
def documented(checkpoint, root, quick_programs):
    """The page with the address of a server in it."""
    page = (root / "docs" / "serving.md").read_text(encoding="utf-8")
    with listening(make_service(dataclasses.replace(OPTIONS, checkpoint=str(checkpoint), name="ZAYA1-8B"))) as address:
        yield page.replace("http://127.0.0.1:8000", address)


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_python(documented, capsys):
    scope = {}
    for block in blocks(documented, "python"):
        exec(block, scope)
    assert scope["reply"].markovian_rsa["chosen"]["round"] == 1 and "prompt_tokens" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(documented):
    (block,) = blocks(documented, "sh")
    done = subprocess.run(["bash", "-ec", block], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"object":"list"' in done.stdout and done.stdout.endswith("data: [DONE]\n\n")


def test_every_metric_and_path_is_in_the_page(documented):
    import urllib.request

    address = re.search(r"http://127.0.0.1:\d+", documented)[0]
    text = urllib.request.urlopen(f"{address}/metrics").read().decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE") and "_created" not in line}
    assert names and {name for name in names if name not in documented} == set()
    assert {path for path in _PATHS if path not in documented} == set()


def test_every_flag_is_in_the_page(documented):
    names = {field.name for field in dataclasses.fields(OPTIONS)}
    assert {name for name in names if f"--{name}`" not in documented} == set()
