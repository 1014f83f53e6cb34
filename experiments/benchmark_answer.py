"""What `benchmark_checkpoint` measures: one answer of one engine, in a process of its own, from the very start."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

from experiments.benchmark_shared import import_transformers, random_tokens, receive
from zaya_jax.errors import mistake

ENGINES = ("zaya_jax", "zaya_jax again", "transformers")  # "again" finds its programs compiled
Answer = Iterator[None]  # yields when the prompt has been read, and after every further token


@dataclasses.dataclass
class Timing:
    """Of one engine; seconds and bytes.

    Attributes:
        imports, load: until the library, then the model are there.
        loaded: anonymous memory after loading.
        first_prefill, prefill: reading the prompt for the first time, and the median of later times.
        first_token, token: the token behind it, the first time, and the median of all later ones.
        peak: the most anonymous memory.
    """

    imports: float
    load: float
    loaded: int
    first_prefill: float
    prefill: float
    first_token: float
    token: float
    peak: int


def measure(checkpoint: str, engines: list[str], prompt: int, new_tokens: int, repeats: int) -> dict[str, Timing]:
    """One engine after the other; the compiled programs of the first are kept for the second only."""
    unknown = [name for name in engines if name not in ENGINES]
    if unknown:
        raise mistake("unknown name", where="--engines", expected=", ".join(ENGINES), found=unknown[0])
    with tempfile.TemporaryDirectory() as programs:
        return {
            engine: _in_a_process(engine.split()[0], checkpoint, prompt, new_tokens, repeats, programs)
            for engine in engines
        }


def _in_a_process(*arguments) -> Timing:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()  # so that its death is the end of the pipe
    try:
        return receive(ours, arguments[0])
    finally:
        process.join()


def _measure(pipe, library: str, checkpoint: str, prompt: int, new_tokens: int, repeats: int, programs: str) -> None:
    peak = _Peak()
    start = _now()
    prepare = _jax if library == "zaya_jax" else _torch
    load = prepare(prompt, new_tokens, programs)
    imported = _now()
    answer = load(checkpoint)
    loaded = _now()
    anonymous = _anonymous()
    runs = [_seconds(answer()) for _ in range(1 + repeats)]
    (first_prefill, first_token, *rest), later = runs[0], runs[1:]
    tokens = rest + [seconds for run in later for seconds in run[1:]]
    pipe.send(
        Timing(
            imports=imported - start,
            load=loaded - imported,
            loaded=anonymous,
            first_prefill=first_prefill,
            prefill=statistics.median(run[0] for run in later),
            first_token=first_token,
            token=statistics.median(tokens),
            peak=peak.bytes,
        )
    )


def _seconds(answer: Answer) -> list[float]:
    """Of every step of an answer."""
    times = [_now()]
    for _ in answer:
        times.append(_now())
    return [b - a for a, b in itertools.pairwise(times)]


def _jax(prompt: int, new_tokens: int, programs: str) -> Callable[[str], Callable[[], Answer]]:
    import jax

    import zaya_jax
    from zaya_jax.sampling.generate import stream
    from zaya_jax.sampling.request import Request, Sampling

    jax.config.update("jax_compilation_cache_dir", programs)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

    def load(checkpoint: str) -> Callable[[], Answer]:
        model, variables, _ = zaya_jax.load(checkpoint, dtype="bfloat16")
        (tokens,) = random_tokens(1, prompt, model.config.vocab_size)
        request = Request("", tokens, sampling=Sampling(temperature=0.0), max_new_tokens=new_tokens + 1)
        return lambda: (None for _ in stream(model, variables, [request], chunk=1))

    return load


def _torch(prompt: int, new_tokens: int, programs: str) -> Callable[[str], Callable[[], Answer]]:
    del programs
    torch, ZayaForCausalLM = import_transformers()

    def load(checkpoint: str) -> Callable[[], Answer]:
        model = ZayaForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
        tokens = torch.from_numpy(random_tokens(1, prompt, model.config.vocab_size)).long()

        def answer() -> Answer:
            with torch.no_grad():
                out = model(tokens, use_cache=True, logits_to_keep=1)
                for _ in range(new_tokens):
                    token, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
                    yield
                    out = model(token, past_key_values=cache, use_cache=True)
                out.logits[:, -1:].argmax(-1)
                yield

        return answer

    return load


def _now() -> float:
    return time.perf_counter()


def _anonymous() -> int:
    """Bytes of this process that no file backs."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


class _Peak:
    """Watches this process's anonymous memory."""

    def __init__(self):
        self.bytes = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.bytes = max(self.bytes, _anonymous())
            time.sleep(0.05)


def table(timings: dict[str, Timing]) -> str:
    """As Markdown, an engine a column."""
    rows = {
        "import": lambda t: f"{t.imports:.1f} s",
        "load": lambda t: f"{t.load:.2f} s",
        "anonymous memory after loading": lambda t: f"{t.loaded / 1e9:.1f} GB",
        "first prefill": lambda t: f"{t.first_prefill:.2f} s",
        "first decoded token": lambda t: f"{t.first_token:.2f} s",
        "prefill, warm": lambda t: f"{t.prefill:.2f} s",
        "decode, median of a token": lambda t: f"{t.token * 1e3:.0f} ms",
        "peak of anonymous memory": lambda t: f"{t.peak / 1e9:.1f} GB",
    }
    lines = ["| | " + " | ".join(timings) + " |", "|---" * (len(timings) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(cell(t) for t in timings.values()) + " |" for name, cell in rows.items()]
    return "\n".join(lines)


def token_bytes(config) -> int:
    """Bytes of bfloat16 weights that a token reads: one expert a layer, everything else, the head."""
    from zaya_jax.model.weights import count_active_parameters

    return 2 * (count_active_parameters(config) + config.vocab_size * config.hidden_size)
