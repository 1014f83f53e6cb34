"""Markovian RSA behind a chat message, against a search on an engine of its own."""

import json

import pytest

from tests.serving.served import ScriptedEngine, engine_like, listening, served, until
from zaya_jax.sampling.rsa_run import bill, run_searches
from zaya_jax.serving.search import choose, read_search, reply
from zaya_jax.serving.server import Options, start_service

http = pytest.importorskip("httpx2", reason='needs the extra "serve-test"')

CHAT = "/v1/chat/completions"
SETTINGS = {"n": 4, "c": 2, "t": 1, "beta": 24, "tau": 12, "answer_budget": 8}
PROBLEM = [{"role": "user", "content": "What is 2 + 2?"}]


def body(**more):
    return {"messages": PROBLEM, "seed": 5, "markovian_rsa": SETTINGS | more}


@pytest.fixture(scope="module")
def web(address):
    with http.Client(base_url=address, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def own(service, tokenizer):
    """The search of a body, on an engine of its own."""

    def run(body):
        search = read_search(body, served(tokenizer)).begun
        list(run_searches(engine_like(service.worker._engine), [search]))
        return search

    return run


@pytest.mark.parametrize("selection", ["majority", "final"])
def test_the_answer_is_that_of_a_search(web, own, service, tokenizer, selection):
    said = web.post(CHAT, json=body(selection=selection)).json()
    search = own(body(selection=selection))
    chosen = choose(search, selection, "math", tokenizer)
    reasoning, content = reply(chosen.candidate, tokenizer)
    message = said["choices"][0]["message"]
    assert (message.get("reasoning_content", ""), message["content"]) == (reasoning, content)
    assert said["choices"][0]["finish_reason"] == chosen.candidate.completion.finish_reason
    found = said["markovian_rsa"]
    assert found["chosen"] == {"round": chosen.candidate.round, "index": chosen.candidate.index}
    assert [one["generated"] for one in found["rounds"]] == [one.generated for one in bill(search)]
    assert [one["carried"] for one in found["rounds"]] == [one.carried for one in bill(search)]
    usage = said["usage"]
    assert usage["completion_tokens"] == sum(len(one.completion.tokens) for one in search.candidates.values())
    assert usage["prompt_tokens"] == sum(len(one.request.tokens) for one in search.candidates.values())
    assert service.worker.held == 0


def test_a_stream_says_how_far_it_is_and_then_the_same(web):
    whole = web.post(CHAT, json=body(selection="final")).json()
    comments, chunks = [], []
    options = {"stream": True, "stream_options": {"include_usage": True}}
    with web.stream("POST", CHAT, json=body(selection="final") | options) as answer:
        for line in answer.iter_lines():
            if line.startswith(": "):
                comments.append(line)
            elif line.startswith("data: {"):
                chunks.append(json.loads(line.removeprefix("data: ")))
    assert line == "" and len(comments) >= 9 and comments[-1].startswith(": round 3 of 3: 1 of 1 candidates, ")
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    message = whole["choices"][0]["message"]
    for name in ("reasoning_content", "content"):
        assert "".join(delta.get(name, "") for delta in deltas) == message.get(name, "")
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    generated = [[one["generated"] for one in said["markovian_rsa"]["rounds"]] for said in (chunks[-2], whole)]
    assert generated[0] == generated[1]


def test_leaving_ends_the_search(web, service):
    with web.stream("POST", CHAT, json=body(beta=400, n=8) | {"stream": True}) as answer:
        next(answer.iter_lines())
        assert service.worker.held == 8
    until(lambda: service.worker.held == 0 and not service.worker._engine.busy)


def test_what_most_say_wins(tokenizer):
    """Candidates say by their place what they have found; half and 0.5 are the same."""
    found = {"0": r"\frac12", "1": "0.5", "2": "3", "3": "none"}

    def wants(request):
        place = request.id.rpartition("/")[2]
        answer = "I do not know" if found[place] == "none" else rf"So \boxed{{{found[place]}}}"
        return tokenizer.encode(f"hm</think>{answer}", special=False) + [4]

    service = start_service(ScriptedEngine(tokenizer, wants), tokenizer, "scripted", 4096, Options(""), None)
    with listening(service) as address, http.Client(base_url=address) as web:
        said = web.post(CHAT, json=body(beta=100, answer_budget=100)).json()
        assert said["choices"][0]["message"]["content"] == r"So \boxed{\frac12}"
        assert said["markovian_rsa"]["votes"] == [{"answer": r"\frac12", "votes": 2}, {"answer": "3", "votes": 1}]
        assert said["markovian_rsa"]["chosen"] == {"round": 1, "index": 0}
        found.update({"0": "none", "1": "none", "2": "none"})
        said = web.post(CHAT, json=body(beta=100, answer_budget=100)).json()
        assert said["markovian_rsa"]["votes"] == [] and said["choices"][0]["message"]["content"] == "I do not know"
        service.worker._engine.fail = RuntimeError("injected")
        assert web.post(CHAT, json=body()).status_code == 503
