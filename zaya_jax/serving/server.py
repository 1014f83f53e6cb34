"""`python -m experiments.serve`: from a checkpoint to a listening server, and down again."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import logging
import os
import pathlib
import signal
import socket
import sys
from typing import Any

from zaya_jax.checkpoint import open_checkpoint, resolve
from zaya_jax.errors import mistake
from zaya_jax.loading import load
from zaya_jax.sampling.engine import Engine
from zaya_jax.sampling.request import Request, Sampling
from zaya_jax.text.tokenizer import require_tokenizer

KEY_VARIABLE = "ZAYA_API_KEY"
_LAST_WORDS = 5.0  # seconds for streams that were ended to tell their clients
_LAST_STEP = 30.0  # seconds for the engine's thread to come out of its last step


@dataclasses.dataclass(frozen=True)
class Options:
    """How a checkpoint is served.

    Attributes:
        checkpoint: a directory, or owner/name of the Hub.
        host, port: where to listen; port 0 takes a free one.
        name: of the model for its clients; by default the last part of the checkpoint's.
        api_key: a file that holds the key that clients have to show; else the environment's ZAYA_API_KEY.
        slots: answers that are drawn together.
        context: most tokens of a prompt and its answer. Memory is taken for `slots` times as many, and half of that for
            prompts that are remembered.
        queue: answers that may wait for a slot; more are told to come again later.
        grace: seconds that running answers have to end when the server is told to stop.
        chunk: tokens of a prompt read at a time, and between two bursts while others are answered.
        burst: tokens drawn between two looks at who came and who left.
        temperature, top_p: of requests that do not say.
        dtype: what the model is computed in.
        warm_up: answer prompts of several sizes before listening, so that clients do not wait for programs to compile.
    """

    checkpoint: str
    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    api_key: str | None = None
    slots: int = 8
    context: int = 8192
    queue: int = 64
    grace: float = 30.0
    chunk: int = 256
    burst: int = 8
    temperature: float = 1.0
    top_p: float = 0.95
    dtype: str = "bfloat16"
    warm_up: bool = True


def serve(options: Options) -> None:
    """Loads a checkpoint and serves it until SIGTERM or SIGINT.

    Raises:
        UserError: the packages are missing, the checkpoint or an option is wrong, or the port is taken.
    """
    _require_packages()
    key = read_key(options.api_key)
    listener = _bind(options.host, options.port)
    with contextlib.closing(listener):
        if key is None and not _is_local(listener):
            _say(f"warning: {options.host} can be reached from elsewhere, and no --api_key is asked for")
        service = make_service(options, key)
        _run(service, listener, options)


def make_service(options: Options, key: str | None = None) -> Any:
    """The model behind an engine with its thread running, as `app.make_app` takes it. Raises as `serve`."""
    from zaya_jax.serving.reply import with_visible_tags

    opened = open_checkpoint(resolve(options.checkpoint))
    tokenizer = with_visible_tags(require_tokenizer(opened.directory))
    Sampling(options.temperature, options.top_p)
    model, variables, _ = load(options.checkpoint, dtype=options.dtype)
    engine = Engine(
        model,
        variables,
        slots=options.slots,
        capacity=min(options.context, model.config.max_position_embeddings),
        tokenizer=tokenizer,
        chunk=options.chunk,
        burst=options.burst,
        read_limit=options.chunk,
    )
    if options.warm_up:
        warm_up(engine, tokenizer.bos_id or 0, options.chunk)
    name = options.name or pathlib.PurePath(options.checkpoint.rstrip("/") or "/").name or "zaya"
    context = min(options.context, model.config.max_position_embeddings)
    return start_service(engine, tokenizer, name, context, options, key)


def warm_up(engine: Engine, token: int, chunk: int) -> None:
    """Compiles the programs that read prompts of every size up to a chunk, those behind a chunk, and decoding."""
    sizes = [1 << power for power in range(4, chunk.bit_length())]
    for length in (*sizes, chunk, chunk + 1, 2 * chunk):
        if length + 2 <= engine.capacity:
            engine.run([Request("warm-up", (token,) * length, max_new_tokens=2)])


def start_service(engine: Any, tokenizer: Any, name: str, context: int, options: Options, key: str | None) -> Any:
    """A service over an engine that is there already."""
    from zaya_jax.serving.app import Service
    from zaya_jax.serving.asked import Served
    from zaya_jax.serving.meters import Meters
    from zaya_jax.serving.worker import Worker

    meters = Meters()
    if hasattr(engine, "stats"):
        meters.leave_out(engine.stats)
    worker = Worker(engine, options.queue, meters)
    served = Served(name, tokenizer, context, worker.places, options.temperature, options.top_p, engine.check)
    worker.start()
    return Service(served, worker, meters, key)


def read_key(path: str | None) -> str | None:
    """The key that clients have to show, from a file or else the environment; None for none.

    Raises:
        UserError: the file cannot be read, or it is empty.
    """
    if path is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        key = pathlib.Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        fix = "it is the name of a file that holds the key, so that the key shows in no list of processes"
        raise mistake("cannot read the key", where=f"--api_key={path}", found=error, fix=fix) from None
    if not key:
        raise mistake("no key in the file", where=f"--api_key={path}", expected="one line with the key")
    return key


def _require_packages() -> None:
    try:
        import prometheus_client
        import starlette
        import uvicorn
    except ImportError as error:
        fix = 'pip install "zaya_jax[serve]"'
        raise mistake("serving needs more packages", found=f"no {error.name}", fix=fix) from None
    del prometheus_client, starlette, uvicorn


def _bind(host: str, port: int) -> socket.socket:
    """A socket that has its port but does not listen: whoever comes before the model is there is refused at once."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with contextlib.ExitStack() as on_failure:
            listener = on_failure.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            on_failure.pop_all()
        return listener
    except OSError as error:
        fix = "take another --port, or end what has this one"
        raise mistake("cannot listen", where=f"{host}:{port}", found=error.strerror or error, fix=fix) from None


def _is_local(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _run(service: Any, listener: socket.socket, options: Options) -> None:
    """Listens until a signal comes, and lets those end who are being answered."""
    import uvicorn

    from zaya_jax.serving.app import make_app

    class Server(uvicorn.Server):
        """Ends with exit code 0 on a signal, which uvicorn's own raises again behind it."""

        @contextlib.contextmanager
        def capture_signals(self):
            yield

    config = uvicorn.Config(
        make_app(service),
        http="h11",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(options.grace + _LAST_WORDS),
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # what it says at the start, we say
    server = Server(config)

    async def run() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, _stop, server, service.worker, options.grace)
        served = service.served
        _say(f"{served.name} at {_address(listener)}/v1: {options.slots} slots of {served.context} tokens")
        await server.serve(sockets=[listener])

    asyncio.run(run())
    service.worker.stop()
    if not service.worker.join(_LAST_STEP):
        _say("warning: the engine's last step takes too long; left behind")
        os._exit(0)  # a thread inside of a compiled program would crash the interpreter's end
    _say("stopped")


def _stop(server: Any, worker: Any, grace: float) -> None:
    """On a signal: nobody new; those who are being answered have `grace` seconds. On a second one: at once."""
    if server.should_exit:
        server.force_exit = True
        worker.stop()
        return
    _say(f"stopping; running answers have {grace:g} s")
    worker.drain()
    server.should_exit = True
    asyncio.get_running_loop().call_later(grace, worker.stop)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
