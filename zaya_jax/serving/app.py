"""The endpoint as an ASGI application: who may ask, what is answered at which path, and what happens to who leaves."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from zaya_jax.serving.asked import Asked, Served, read_chat, read_completion
from zaya_jax.serving.meters import Meters
from zaya_jax.serving.refusals import Refusal
from zaya_jax.serving.search import SearchRun, read_search, search_response
from zaya_jax.serving.shapes import Answer, ChatAnswer, CompletionAnswer
from zaya_jax.serving.worker import Stream, Worker

MOST_BYTES = 16 * 2**20  # of a request's body
HEARTBEAT = 15.0  # seconds after which a silent stream says that it lives: proxies drop what is silent for long
GONE = 499  # what is counted for a client that left before its answer
_HAS_LEFT = "zaya_jax.client_has_left"  # in the scope of a request whose response had begun
_PATHS = ("/v1/models", "/v1/completions", "/v1/chat/completions", "/health", "/metrics")
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Service:
    """What the application needs.

    Attributes:
        key: clients of /v1 have to show it; None lets everybody in.
    """

    served: Served
    worker: Worker
    meters: Meters
    key: str | None = None
    started: int = dataclasses.field(default_factory=lambda: int(time.time()))


class Gone(Exception):
    """The client has left."""


def make_app(service: Service) -> Callable:
    """The application."""

    async def chat(request: HttpRequest) -> Response:
        body = await read_json(request)
        if body.get("markovian_rsa") is not None:
            return await _search(service, request, body)
        return await _answer(service, request, await _apart(read_chat, body, service.served), ChatAnswer)

    async def completions(request: HttpRequest) -> Response:
        asked = await _apart(read_completion, await read_json(request), service.served)
        return await _answer(service, request, asked, CompletionAnswer)

    routes = [
        Route("/v1/models", lambda _: JSONResponse({"object": "list", "data": [_model(service)]})),
        Route("/v1/models/{name:path}", lambda request: _one_model(service, request)),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/health", lambda _: _health(service)),
        Route("/metrics", lambda _: Response(service.meters.text(), media_type="text/plain; version=0.0.4")),
    ]
    handlers = {
        Refusal: lambda _, error: refused(error),
        HTTPException: lambda _, error: refused(Refusal(error.status_code, error.detail)),
        ClientDisconnect: lambda _, error: Response(status_code=GONE),
        Gone: lambda _, error: Response(status_code=GONE),
        Exception: lambda _, error: refused(Refusal(500, "something went wrong here; see the server's log")),
    }
    return _Outside(Starlette(routes=routes, exception_handlers=handlers), service)


class _Outside:
    """Around the application: lets in who may ask, and counts what was answered."""

    def __init__(self, app: Starlette, service: Service):
        self._app, self._service = app, service

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        path, start, status = scope["path"], time.perf_counter(), 500

        async def watched(message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        app = self._app if self._lets_in(scope) else _REFUSE_KEY
        try:
            await app(scope, receive, watched)
        finally:
            status = GONE if _HAS_LEFT in scope else status
            known = path if path in _PATHS else "/v1/models" if path.startswith("/v1/models/") else "other"
            self._service.meters.http(known, status)
            seconds = time.perf_counter() - start
            _log.info("%s %s %d %.3f s", scope["method"], json.dumps(path), status, seconds)

    def _lets_in(self, scope) -> bool:
        key = self._service.key
        if key is None or not scope["path"].startswith("/v1"):
            return True
        shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, own = shown.partition(b" ")
        # Digests: their comparison takes the same time whatever the key's length.
        digests = [hashlib.sha256(text).digest() for text in (own.strip(), key.encode())]
        return hmac.compare_digest(*digests) and scheme.lower() == b"bearer"


def refused(refusal: Refusal) -> JSONResponse:
    """A refusal as a response."""
    return JSONResponse(refusal.body, refusal.status, refusal.headers)


_REFUSE_KEY = refused(Refusal(401, "give the server's API key as a bearer token", code="invalid_api_key"))


async def read_json(request: HttpRequest) -> dict[str, Any]:
    """A request's body.

    Raises:
        Refusal: it is too long, or no JSON object.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # also keeps web pages of elsewhere from asking without the browser's consent
        raise Refusal(415, f"expected Content-Type: application/json; found {kind[:80]!r}", code="invalid_content_type")
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            raise Refusal(413, f"the body is longer than {MOST_BYTES} bytes", code="body_too_long")
    try:
        body = json.loads(content.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(body, dict):
        raise Refusal(400, f"the body is not a JSON object; found {type(body).__name__}", code="invalid_json")
    return body


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


async def _apart(function: Callable, *arguments: Any) -> Any:
    """In another thread: templates and tokenizers take their time over long texts."""
    return await anyio.to_thread.run_sync(function, *arguments)


async def _answer(service: Service, request: HttpRequest, asked: Asked, shape: type[Answer]) -> Response:
    answer = shape(asked, service.served.name, service.served.tokenizer)
    stream = service.worker.open(asked.requests)
    if asked.stream:
        return EventStream(stream, lambda: _events(answer, stream))
    with stream:
        await while_there(request.receive, _collect(answer, stream))
    return JSONResponse(answer.whole())


async def _collect(answer: Answer, stream: Stream) -> None:
    while not answer.done:
        for delta in await stream.next() or ():
            answer.gain(delta)


async def _events(answer: Answer, stream: Stream) -> AsyncIterator[bytes]:
    for chunk in answer.begin():
        yield event(chunk)
    while not answer.done:
        deltas = await stream.next(HEARTBEAT)
        if deltas is None:
            yield comment("waiting")
        for delta in deltas or ():
            for chunk in answer.gain(delta):
                yield event(chunk)
    if answer.asked.include_usage:
        yield event(answer.usage_chunk())


async def _search(service: Service, request: HttpRequest, body: dict[str, Any]) -> Response:
    asked = await _apart(read_search, body, service.served)
    run = SearchRun(asked, service.worker)
    model, tokenizer = service.served.name, service.served.tokenizer

    async def events() -> AsyncIterator[bytes]:
        yield event(_role(asked.id, model))
        async with contextlib.aclosing(run.run(HEARTBEAT)) as steps:
            async for said in steps:
                yield comment(said)
        for chunk in await _apart(lambda: search_response(run, model, tokenizer, chunks=True)):
            yield event(chunk)

    async def whole() -> None:
        async for _ in run.run(HEARTBEAT):
            pass

    if asked.stream:
        return EventStream(run.stream, events)
    with run.stream:
        await while_there(request.receive, whole())
    return JSONResponse((await _apart(lambda: search_response(run, model, tokenizer, chunks=False)))[0])


def _role(response: str, model: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    frame = {"id": response, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
    return frame | {"choices": [choice]}


def event(value: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n\n"


def comment(text: str) -> bytes:
    """What clients of server-sent events skip."""
    return f": {text}\n\n".encode()


class EventStream(Response):
    """Sends server-sent events while the client is there. Whatever happens, the stream is closed in the end."""

    def __init__(self, stream: Stream, events: Callable[[], AsyncIterator[bytes]]):
        super().__init__(
            media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )
        del self.headers["content-length"]
        self._stream, self._events = stream, events

    async def __call__(self, scope, receive, send) -> None:
        with self._stream:
            try:
                await while_there(receive, self._send(send))
            except Gone:  # there is nobody left to be told
                scope[_HAS_LEFT] = True

    async def _send(self, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        last = b"data: [DONE]\n\n"
        async with contextlib.aclosing(self._events()) as events:
            try:
                async for part in events:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            except Refusal as refusal:  # the status is out already: an event says it
                last = event(refusal.body)
        await send({"type": "http.response.body", "body": last})


async def while_there(receive: Callable, work: Coroutine) -> None:
    """Does some work for as long as the client is connected.

    Raises:
        Gone: it left first.
    """
    task, left = asyncio.create_task(work), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait([task, left], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        await task
    except OSError as error:  # sending to who has left
        raise Gone from error
    finally:
        for one in (task, left):
            one.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _left(receive: Callable) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _model(service: Service) -> dict[str, Any]:
    served = service.served
    own = {"id": served.name, "object": "model", "created": service.started, "owned_by": "zaya_jax"}
    return own | {"max_model_len": served.context}


def _one_model(service: Service, request: HttpRequest) -> Response:
    name = request.path_params["name"]
    if name != service.served.name:
        message = f"there is no model {name[:200]!r} here, only {service.served.name!r}"
        raise Refusal(404, message, param="model", code="model_not_found")
    return JSONResponse(_model(service))


def _health(service: Service) -> Response:
    return JSONResponse({"status": "ok"}) if service.worker.alive else JSONResponse({"status": "not serving"}, 503)
