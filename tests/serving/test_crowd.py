"""Many clients at once, some of whom leave and some of whom write nonsense."""

import asyncio
import dataclasses
import json

import pytest

from tests.serving.served import engine_like, served, until
from zaya_jax.serving.asked import read_chat, read_completion

http = pytest.importorskip("httpx2", reason='needs the extra "serve-test"')

COUNT = 64
LEAVES = [index for index in range(COUNT) if index % 3 == 1]
MALFORMED = [index for index in range(COUNT) if index % 10 == 5 and index not in LEAVES]
STAYS = [index for index in range(COUNT) if index not in LEAVES and index not in MALFORMED]
HEAD = "A beginning that many of the prompts share, longer than a chunk of the engine's is, and then: "


def body(index):
    """What a client asks: prompts, lengths and ways to draw are mixed."""
    text = (HEAD if index % 2 else "") + f"client {index}"
    what = {"messages": [{"role": "user", "content": text}]} if index % 4 < 2 else {"prompt": text}
    drawn = {"seed": index, "temperature": (0, 0.7, 1.0)[index % 3], "return_token_ids": True, "stream": True}
    length = 1200 if index in LEAVES else 4 + 5 * (index % 9)
    wrong = {"top_p": "most"} if index in MALFORMED else {}
    return (
        what
        | drawn
        | wrong
        | {"max_tokens": length, "ignore_eos": index in LEAVES}
        | {"stream_options": {"include_usage": True}}
    )


def path(index):
    return "/v1/chat/completions" if index % 4 < 2 else "/v1/completions"


async def visit(web, index):
    """What a client gets: its tokens, its text and its usage; or the status."""
    tokens, text, usage, last = [], "", None, None
    await asyncio.sleep(0.01 * (index % 7))
    async with web.stream("POST", path(index), json=body(index)) as answer:
        if answer.status_code != 200:
            return answer.status_code
        async for line in answer.aiter_lines():
            if not line.startswith("data: "):
                continue
            last = line.removeprefix("data: ")
            if last == "[DONE]":
                continue
            chunk = json.loads(last)
            usage = chunk["usage"] or usage
            for choice in chunk["choices"]:
                tokens += choice.get("token_ids", [])
                delta = choice.get("delta", {"content": choice.get("text")})
                text += (delta.get("reasoning_content") or "") + (delta.get("content") or "")
            if index in LEAVES and tokens:
                return "left"
    assert last == "[DONE]"
    return tokens, text, usage


async def visit_all(address):
    limits = http.Limits(max_connections=COUNT, max_keepalive_connections=COUNT)
    async with http.AsyncClient(base_url=address, timeout=120, limits=limits) as web:
        return await asyncio.gather(*(visit(web, index) for index in range(COUNT)))


def test_nobody_gets_what_is_anothers(address, service, tokenizer):
    got = asyncio.run(visit_all(address))
    assert {got[index] for index in LEAVES} == {"left"} and {got[index] for index in MALFORMED} == {400}
    until(lambda: service.worker.held == 0 and not service.worker._engine.busy)

    offer = served(tokenizer)
    requests = [(read_chat if index % 4 < 2 else read_completion)(body(index), offer).requests[0] for index in STAYS]
    own = engine_like(service.worker._engine).run([dataclasses.replace(r, id=str(i)) for i, r in zip(STAYS, requests)])
    for index, request, expected in zip(STAYS, requests, own):
        tokens, text, usage = got[index]
        assert tokens == expected.tokens.tolist(), index
        if path(index) == "/v1/completions":
            assert text == expected.text
        counts = (usage["prompt_tokens"], usage["completion_tokens"])
        assert counts == (len(request.tokens), len(expected.tokens))

    count = metrics(address)
    assert count['zaya_answers_total{outcome="finished"}'] == len(STAYS)
    assert count['zaya_answers_total{outcome="cancelled"}'] == len(LEAVES)
    assert count['zaya_answers_total{outcome="failed"}'] == 0
    asked = {name: number for name, number in count.items() if name.startswith("zaya_http_requests_total")}
    for status, expected in [(200, len(STAYS)), (400, len(MALFORMED)), (499, len(LEAVES))]:
        assert sum(number for name, number in asked.items() if f'status="{status}"' in name) == expected
    assert count["zaya_waiting"] == count["zaya_slots_used"] == 0 and count["zaya_engine_up"] == 1
    drawn = sum(len(expected.tokens) for expected in own)
    assert drawn + len(LEAVES) <= count["zaya_drawn_tokens_total"] < drawn + 1200 * len(LEAVES) / 4
    assert count["zaya_first_token_seconds_count"] == len(STAYS) + len(LEAVES)
    assert count["zaya_token_seconds_count"] == sum(len(expected.tokens) > 1 for expected in own)
    read, known = (count[f"zaya_{name}_prompt_tokens_total"] for name in ("read", "known"))
    # Those who left before their prompt was read through are not in either.
    assert sum(len(request.tokens) for request in requests) <= read + known and known > 0


def metrics(address):
    """The numbers of /metrics by name."""
    lines = http.get(f"{address}/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}
