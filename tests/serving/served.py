"""Servers to talk to: a tiny model behind one, or a script instead of a model."""

import contextlib
import dataclasses
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.sampling.models import CONFIG, tiny
from zaya_jax.checkpoint import SpecialTokens, save
from zaya_jax.sampling.answers import Answer
from zaya_jax.sampling.decode import LENGTH, RUNNING, STOP
from zaya_jax.sampling.engine import Engine
from zaya_jax.serving.asked import Served
from zaya_jax.serving.server import Options
from zaya_jax.text.byte_level import BOS_ID, IM_END_ID, PAD_ID, write_tokenizer
from zaya_jax.text.chat import ChatTemplate

for package in ("starlette", "uvicorn", "prometheus_client"):
    pytest.importorskip(package, reason='needs the extra "serve"')  # skips the test module that imports this one

LONG = dataclasses.replace(CONFIG, max_position_embeddings=2048)  # the prompts of a search are long
OPTIONS = Options("", context=1536, slots=4, chunk=64, burst=8, queue=80, dtype="float32", name="tiny")
TEMPLATE = ChatTemplate(
    """{%- if tools %}{{ "<|im_start|>system\n" ~ (tools | tojson) ~ "<|im_end|>\n" }}{% endif %}
{%- for message in messages %}
    {{- "<|im_start|>" ~ message.role ~ "\n" ~ message.content }}
    {%- for call in message.tool_calls or [] %}
        {{- "<zyphra_tool_call>\n<function=" ~ call.function.name ~ ">\n" }}
        {%- for key, value in call.function.arguments.items() %}
            {{- "<parameter=" ~ key ~ ">\n" ~ value ~ "\n</parameter>\n" }}
        {%- endfor %}
        {{- "</function>\n</zyphra_tool_call>" }}
    {%- endfor %}
    {{- "<|im_end|>\n" }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\n" }}
    {%- if enable_thinking is defined and not enable_thinking %}{{ "<think>\n\n</think>\n\n" }}{% endif %}
{%- endif %}""",
    "the tests' template",
)


def write_checkpoint(directory: Path) -> Path:
    """The tiny model with a long context, and a chat template that has tools."""
    tokens = SpecialTokens(bos=BOS_ID, eos=(IM_END_ID,), pad=PAD_ID)
    save(directory, LONG, tiny()[1], "stacked", dtype="float32", special_tokens=tokens)
    write_tokenizer(directory, template=TEMPLATE)
    return directory


@contextlib.contextmanager
def listening(service):
    """The address of a service while it runs."""
    import uvicorn

    from zaya_jax.serving.app import make_app

    config = uvicorn.Config(make_app(service), http="h11", lifespan="off", log_config=None, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        service.worker.stop()
        assert service.worker.join(20)


def until(condition, seconds: float = 20.0) -> None:
    """Waits for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def engine_like(service_engine: Engine) -> Engine:
    """An engine of its own with the same model and settings."""
    e = service_engine
    return Engine(
        e._model,
        e._variables,
        slots=e.slots,
        capacity=e.capacity,
        tokenizer=e._tokenizer,
        chunk=e._chunk,
        burst=e._burst,
    )


def served(tokenizer, context: int = 1536, places: int = 84) -> Served:
    """What `read_chat` and its like need, without a server."""
    return Served("tiny", tokenizer, context, places, 1.0, 0.95, lambda request: None)


class ScriptedEngine:
    """Says what a script wants, a few tokens a step; else as the engine.

    Args of the constructor:
        wants: from a request to token ids.
    """

    def __init__(self, tokenizer, wants, slots=4, pace=3):
        self._tokenizer, self._wants, self.slots, self._pace = tokenizer, wants, slots, pace
        self._rows = {}
        self.fail = None

    busy = property(lambda self: bool(self._rows))
    waiting = property(lambda self: max(len(self._rows) - self.slots, 0))

    def check(self, request):
        pass

    def submit(self, request):
        answer = Answer(len(self._rows), request, self._tokenizer)
        answer.take_prompt([np.zeros((1, len(request.tokens)), np.int8)])
        self._rows[request.id] = answer, list(self._wants(request))

    def cancel(self, name):
        return self._rows.pop(name, None) is not None

    def step(self):
        if self.fail:
            raise self.fail
        time.sleep(0.001)
        return [self._go_on(name) for name in list(self._rows)[: self.slots]]

    def _go_on(self, name):
        answer, wants = self._rows[name]
        start = len(answer.drawn)
        tokens = wants[start : min(start + self._pace, answer.request.max_new_tokens)]
        ended = any(token in answer.request.stop_ids for token in tokens)
        step = start + len(tokens)
        finish = STOP if ended else LENGTH if step >= min(len(wants), answer.request.max_new_tokens) else RUNNING
        numbers = -np.arange(1.0, len(tokens) + 1) / 8
        routes = np.zeros((1, len(tokens)), np.int8)
        delta = answer.take(np.array(tokens, np.int32), numbers, numbers, routes, step=step, finish=finish)
        if delta.completion is not None:
            del self._rows[name]
        return delta
