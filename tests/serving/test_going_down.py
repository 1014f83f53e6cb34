"""The launcher: starting, being told to stop, and mistakes."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from tests.experiments.in_process import run
from tests.experiments.launching import ROOT

pytest.importorskip("uvicorn", reason='needs the extra "serve"')
http = pytest.importorskip("httpx2", reason='needs the extra "serve-test"')

TEXT = "/v1/completions"


@contextlib.contextmanager
def running(checkpoint, *flags):
    """A server in a process of its own, and its address."""
    command = [sys.executable, "-m", "experiments.serve", f"--checkpoint={checkpoint}", "--port=0", "--dtype=float32"]
    settings = ["--slots=4", "--context=1536", "--chunk=64"]  # the programs that the other tests have compiled
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, *settings, *flags], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        said = ""
        while not (found := re.search(r" at (http://\S+)/v1", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        yield process, found[1], said
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


def gone(address):
    try:
        http.get(f"{address}/health")
    except http.ConnectError:
        return True
    return False


def test_running_answers_end_and_nobody_else_comes_in(checkpoint):
    with running(checkpoint) as (process, address, said), http.Client(base_url=address, timeout=60) as web:
        assert "warning" not in said and web.get("/v1/models").json()["data"][0]["id"] == "tiny"
        body = {"prompt": "a", "max_tokens": 1200, "ignore_eos": True, "stream": True, "return_token_ids": True}
        with web.stream("POST", TEXT, json=body) as first, web.stream("POST", TEXT, json=body | {"n": 2}) as second:
            streams = [first.iter_lines(), second.iter_lines()]
            begun = [next(lines) for lines in streams]
            process.send_signal(signal.SIGTERM)
            assert "stopping" in process.stderr.readline()
            assert [tokens([one, *lines]) for one, lines in zip(begun, streams)] == [{0: 1200}, {0: 1200, 1: 1200}]
        assert process.wait(30) == 0
        assert gone(address) and process.stderr.readline() == "stopped\n"


def tokens(lines):
    """How many tokens each choice of a stream has."""
    count, last = {}, None
    for line in lines:
        if line.startswith("data: "):
            last = line.removeprefix("data: ")
            for choice in json.loads(last)["choices"] if last != "[DONE]" else ():
                count[choice["index"]] = count.get(choice["index"], 0) + len(choice["token_ids"])
    assert last == "[DONE]"
    return count


def test_those_who_take_too_long_are_told(checkpoint):
    with running(checkpoint, "--grace=0.2") as (process, address, _), http.Client(base_url=address, timeout=60) as web:
        body = {"prompt": "a", "max_tokens": 1500, "ignore_eos": True, "stream": True, "n": 4}
        with web.stream("POST", TEXT, json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGINT)
            *_, last = (line for line in lines if line.startswith("data: "))
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
        assert process.wait(30) == 0


def test_a_warning_where_everybody_may_ask(checkpoint):
    with running(checkpoint, "--host=0.0.0.0", "--nowarm_up") as (process, _, said):
        assert "warning: 0.0.0.0 can be reached from elsewhere" in said
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_mistakes_end_in_a_line(checkpoint, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = run("serve", f"--checkpoint={checkpoint}", f"--port={taken.getsockname()[1]}")
        assert code == 2 and "cannot listen" in err and err.count("\n") == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "uvicorn", None)
        code, _, err = run("serve", f"--checkpoint={checkpoint}", "--port=0")
        assert code == 2 and 'no uvicorn; pip install "zaya_jax[serve]"' in err and err.count("\n") == 1
    code, _, err = run("serve", f"--checkpoint={tmp_path / 'none'}", "--port=0")
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
