"""Requests that are refused, each with its reason."""

import dataclasses
import json

import pytest

from tests.serving.served import OPTIONS, ScriptedEngine, listening, until
from zaya_jax.errors import UserError
from zaya_jax.serving.server import read_key, start_service

http = pytest.importorskip("httpx2", reason='needs the extra "serve-test"')

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def web(address):
    with http.Client(base_url=address) as client:
        yield client


def error(answer, status):
    assert answer.status_code == status, answer.text
    found = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"} and found["message"]
    return found


def call(name, arguments="{}"):
    one = {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return [{"role": "assistant", "tool_calls": [one]}]


SEARCH = {"n": 4, "c": 2, "t": 1, "beta": 20, "tau": 10, "answer_budget": 10}
BAD = [
    (TEXT, {}, "prompt"),
    (TEXT, {"prompt": []}, "prompt"),
    (TEXT, {"prompt": [[]]}, "prompt"),
    (TEXT, {"prompt": ["a", [5]], "n": 100}, "n"),
    (TEXT, {"prompt": [5, "a"]}, "prompt"),
    (TEXT, {"prompt": [True]}, "prompt"),
    (TEXT, {"prompt": [9999]}, "prompt"),
    (TEXT, {"prompt": ["a"] * 200}, "prompt"),
    (TEXT, {"prompt": "\ud800"}, "prompt"),
    (TEXT, {"prompt": "a", "max_tokens": 1536}, "prompt"),
    (TEXT, {"prompt": "a", "max_tokens": 0}, "max_tokens"),
    (TEXT, {"prompt": "a", "max_tokens": 2.5}, "max_tokens"),
    (TEXT, {"prompt": "a", "echo": True}, "echo"),
    (TEXT, {"prompt": "a", "best_of": 3}, "best_of"),
    (TEXT, {"prompt": "a", "suffix": "b"}, "suffix"),
    (TEXT, {"prompt": "a", "logprobs": 5}, "logprobs"),
    (TEXT, {"prompt": "a", "stop": [""]}, "stop"),
    (TEXT, {"prompt": "a", "stop": ["x"] * 17}, "stop"),
    (TEXT, {"prompt": "a", "stop_token_ids": "x"}, "stop_token_ids"),
    (TEXT, {"prompt": "a", "seed": 0.5}, "seed"),
    (TEXT, {"prompt": "a", "stream": "yes"}, "stream"),
    (TEXT, {"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
    (TEXT, {"prompt": "a", "stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    (TEXT, {"prompt": "a", "model": 3}, "model"),
    (CHAT, {}, "messages"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": ["Hello"]}, "messages[0]"),
    (CHAT, {"messages": [{"content": "x"}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
    (CHAT, {"messages": call("f", "no json")}, "messages[0].tool_calls"),
    (CHAT, {"messages": [{"role": "user", "content": "x", "name": 3}]}, "messages[0].name"),
    (CHAT, HELLO | {"temperature": -1}, "temperature"),
    (CHAT, HELLO | {"temperature": True}, "temperature"),
    (CHAT, HELLO | {"top_p": 1.5}, "top_p"),
    (CHAT, HELLO | {"top_k": -2}, "top_k"),
    (CHAT, HELLO | {"tools": [{"type": "retrieval"}]}, "tools"),
    (CHAT, HELLO | {"tools": 3}, "tools"),
    (CHAT, HELLO | {"tool_choice": "required"}, "tool_choice"),
    (CHAT, HELLO | {"tool_choice": {"type": "function"}}, "tool_choice"),
    (CHAT, HELLO | {"response_format": {"type": "json_object"}}, "response_format"),
    (CHAT, HELLO | {"presence_penalty": 0.5}, "presence_penalty"),
    (CHAT, HELLO | {"audio": {}}, "audio"),
    (CHAT, HELLO | {"top_logprobs": 2, "logprobs": True}, "top_logprobs"),
    (CHAT, HELLO | {"reasoning_effort": "high"}, "reasoning_effort"),
    (CHAT, HELLO | {"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
    (CHAT, HELLO | {"chat_template_kwargs": {"enable_thinking": 1}}, "chat_template_kwargs.enable_thinking"),
    (CHAT, HELLO | {"thinking_budget": -1}, "thinking_budget"),
    (CHAT, HELLO | {"markovian_rsa": 3}, "markovian_rsa"),
    (CHAT, HELLO | {"markovian_rsa": SEARCH | {"m": 1}}, "markovian_rsa.m"),
    (CHAT, HELLO | {"markovian_rsa": SEARCH | {"c": 5}}, "markovian_rsa.c"),
    (CHAT, HELLO | {"markovian_rsa": SEARCH | {"tau": 30}}, "markovian_rsa.tau"),
    (CHAT, HELLO | {"markovian_rsa": SEARCH | {"t": 10**9}}, "markovian_rsa.t"),
    (CHAT, HELLO | {"markovian_rsa": SEARCH | {"beta": 1500}}, "markovian_rsa"),
    (CHAT, HELLO | {"markovian_rsa": SEARCH | {"kind": "../secret"}}, "markovian_rsa.kind"),
    (CHAT, HELLO | {"markovian_rsa": SEARCH | {"kind": "code"}}, "markovian_rsa.selection"),
    (CHAT, HELLO | {"markovian_rsa": SEARCH, "max_tokens": 5}, "max_tokens"),
    (CHAT, {"messages": HELLO["messages"] * 2, "markovian_rsa": SEARCH}, "messages"),
]  # fmt: skip


@pytest.mark.parametrize("path, body, param", BAD, ids=lambda value: str(value)[:60])
def test_a_wrong_field_is_named(web, path, body, param):
    answer = web.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    found = error(answer, 400)
    assert found["param"] == param and found["type"] == "invalid_request_error"


def test_too_long_says_so_in_a_code(web):
    text = "a" * 2000
    for path, asked in [(TEXT, {"prompt": text}), (CHAT, {"messages": [{"role": "user", "content": text}]})]:
        assert error(web.post(path, json=asked), 400)["code"] == "context_length_exceeded"


def test_what_changes_nothing_is_let_through(web):
    neutral = {"logit_bias": {}, "response_format": {"type": "text"}, "presence_penalty": 0, "n": None, "user": "me",
               "store": True, "metadata": {"a": "b"}, "parallel_tool_calls": True, "tools": None,
               "anything": [1]}  # fmt: skip
    assert web.post(CHAT, json=HELLO | neutral | {"max_tokens": 1}).status_code == 200


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"3", b'{"a": NaN}', b"\xff", b"[" * 100_000, b'{"n": ' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_object(web, content):
    found = error(web.post(CHAT, content=content, headers={"Content-Type": "application/json"}), 400)
    assert found["code"] == "invalid_json"


def test_other_refusals(web):
    assert "application/json" in error(web.post(CHAT, content=b"{}"), 415)["message"]
    assert error(web.post(CHAT, json={"messages": "x" * 17 * 2**20}), 413)["code"] == "body_too_long"
    error(web.get("/v2"), 404)
    error(web.get(CHAT), 405)
    assert error(web.post(CHAT, json={"model": "gpt-7"} | HELLO), 404)["code"] == "model_not_found"


@pytest.fixture
def slow(tokenizer):
    """A model that has much to say, with a key before it."""
    engine = ScriptedEngine(tokenizer, lambda request: [80] * 100_000, slots=2, pace=1)
    options = dataclasses.replace(OPTIONS, queue=1)
    return start_service(engine, tokenizer, "slow", 200_000, options, "secret")


def test_a_full_queue(slow):
    with listening(slow) as address, http.Client(base_url=address, headers={"Authorization": "Bearer secret"}) as web:
        body = {"prompt": "a", "max_tokens": 100_000, "stream": True}
        with web.stream("POST", TEXT, json=body | {"n": 2}), web.stream("POST", TEXT, json=body):
            until(lambda: slow.worker.held == 3)
            assert slow.worker.waiting == 1
            answer = web.post(TEXT, json={"prompt": "a"})
            assert error(answer, 429)["code"] == "queue_full" and 1 <= int(answer.headers["Retry-After"]) <= 60
            assert error(web.post(TEXT, json={"prompt": "a", "n": 4}), 400)["param"] == "n"
            assert "zaya_waiting 1.0" in web.get("/metrics").text
        until(lambda: slow.worker.held == 0)
        assert web.post(TEXT, json={"prompt": "a"}).status_code == 200
        assert 'zaya_http_requests_total{path="/v1/completions",status="429"} 1.0' in web.get("/metrics").text
        assert 'zaya_http_requests_total{path="/v1/completions",status="499"} 2.0' in web.get("/metrics").text


def test_a_key(slow):
    with listening(slow) as address, http.Client(base_url=address) as web:
        for headers in (
            {},
            {"Authorization": "secret"},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic secret"},
        ):
            answer = web.get("/v1/models", headers=headers)
            assert error(answer, 401)["code"] == "invalid_api_key" and "secret" not in answer.text
        assert web.get("/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert web.get("/health").json() == {"status": "ok"} and web.get("/metrics").status_code == 200


def test_where_the_key_comes_from(tmp_path, monkeypatch):
    monkeypatch.delenv("ZAYA_API_KEY", raising=False)
    assert read_key(None) is None
    monkeypatch.setenv("ZAYA_API_KEY", "from the environment")
    assert read_key(None) == "from the environment"
    file = tmp_path / "key"
    file.write_text("from the file\n")
    assert read_key(str(file)) == "from the file"
    file.write_text("\n")
    for path, said in [(file, "no key in the file"), (tmp_path / "none", "cannot read the key")]:
        with pytest.raises(UserError, match=said):
            read_key(str(path))


def test_a_failed_engine(slow):
    with listening(slow) as address, http.Client(base_url=address, headers={"Authorization": "Bearer secret"}) as web:
        body = {"prompt": "a", "max_tokens": 100_000}
        with web.stream("POST", TEXT, json=body | {"stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            slow.worker._engine.fail = RuntimeError("injected")
            *_, last = (line for line in lines if line)
        found = json.loads(last.removeprefix("data: "))["error"]
        assert found["code"] == "engine_failed" and "RuntimeError" in found["message"]
        assert web.get("/health").status_code == 503
        assert error(web.post(TEXT, json=body), 503)["code"] == "engine_failed"
        assert "zaya_engine_up 0.0" in web.get("/metrics").text
        assert 'zaya_answers_total{outcome="failed"} 1.0' in web.get("/metrics").text
