"""The engines of `benchmark_sampling`, each in a process of its own, and the requests that all of them answer."""

from __future__ import annotations

import dataclasses
import multiprocessing
import statistics
import time
from collections.abc import Callable

from experiments.benchmark_shared import import_transformers, receive
from zaya_jax.errors import mistake

ENGINES = ("zaya_jax float32", "zaya_jax bfloat16", "transformers float32", "transformers bfloat16")
SHORTEST, LONGEST = 16, 128  # of prompts, and of answers
FIGURES = ("seconds", "tokens", "decode", "full", "host", "programs")


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be done."""

    checkpoint: str
    slots: int
    requests: int
    threads: int


def lengths(job: Job) -> list[tuple[int, int]]:
    """Tokens of each prompt and of its answer. Answers are skewed: log-uniform, the longest 8 times the shortest."""
    import numpy as np

    rng = np.random.default_rng(0)
    prompts = rng.integers(SHORTEST, LONGEST + 1, job.requests)
    answers = np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST + 1), job.requests)).astype(int)
    return list(zip(prompts.tolist(), answers.tolist()))


def prompts(job: Job, vocab_size: int) -> list:
    """Their token ids."""
    import numpy as np

    rng = np.random.default_rng(1)
    return [rng.integers(0, vocab_size, count).astype(np.int32) for count, _ in lengths(job)]


def check(engines: list[str]) -> None:
    """Refuses names that do not exist."""
    unknown = [name for name in engines if name not in ENGINES]
    if unknown:
        raise mistake("unknown name", where="--engines", expected=", ".join(ENGINES), found=unknown[0])


def compare(job: Job, engines: list[str], repeats: int) -> dict[str, list[dict[str, float]]]:
    """The figures of every repetition, by engine. The engines take turns, the order turned each round."""
    workers = {engine: _Worker(engine, job) for engine in engines}
    results: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
    for repeat in range(repeats):
        for engine in engines if repeat % 2 == 0 else reversed(engines):
            results[engine].append(workers[engine].run())
    for worker in workers.values():
        worker.stop()
    return results


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Medians as Markdown."""
    lines = [
        "| engine | whole job, s | tokens/s | decode, tokens/s | full | decode / full | host | programs |",
        "|---" * 8 + "|",
    ]
    medians = {
        engine: {name: statistics.median(run[name] for run in runs) for name in FIGURES if name in runs[0]}
        for engine, runs in results.items()
    }
    for engine, m in medians.items():
        cells = [f"{m['seconds']:.1f}", f"{m['tokens'] / m['seconds']:,.0f}"]
        if "decode" in m:
            ratio = m["decode"] / m["full"]
            cells += [
                f"{m['decode']:,.0f}",
                f"{m['full']:,.0f}",
                f"{ratio:.1%}",
                f"{m['host']:.1%}",
                f"{m['programs']:.0f}",
            ]
        lines.append(f"| {engine} | " + " | ".join([*cells, *[""] * (7 - len(cells))]) + " |")
    ours, theirs = (
        [m["seconds"] for engine, m in medians.items() if engine.startswith(name)] for name in ("zaya", "trans")
    )
    if ours and theirs:
        lines.append(f"\nWhole job, the better type of each: {min(theirs) / min(ours):.2f} times transformers' speed.")
    return "\n".join(lines)


class _Worker:
    """A process that has an engine ready."""

    def __init__(self, engine: str, job: Job):
        context = multiprocessing.get_context("spawn")
        self._engine = engine
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, engine, job), daemon=True)
        self._process.start()
        theirs.close()  # so that its death is the end of the pipe
        receive(self._pipe, engine)

    def run(self) -> dict[str, float]:
        """The figures of one repetition."""
        self._pipe.send("run")
        return receive(self._pipe, self._engine)

    def stop(self) -> None:
        self._pipe.send("stop")
        self._process.join()


def _serve(pipe, engine: str, job: Job) -> None:
    library, dtype = engine.split(" ")
    run = (_jax_job if library == "zaya_jax" else _torch_job)(job, dtype)
    run()  # compiles, and warms up
    pipe.send({})
    while pipe.recv() == "run":
        pipe.send(run())


def _jax_job(job: Job, dtype: str) -> Callable[[], dict[str, float]]:
    import zaya_jax
    from zaya_jax.sampling.engine import Engine, compiled_programs
    from zaya_jax.sampling.request import Request

    model, variables, _ = zaya_jax.load(job.checkpoint, dtype=dtype)
    rows = prompts(job, model.config.vocab_size)
    requests = [
        Request(str(i), row, seed=i, max_new_tokens=count)
        for i, (row, (_, count)) in enumerate(zip(rows, lengths(job)))
    ]
    long = [Request(f"long {i}", rows[i][:SHORTEST], seed=i, max_new_tokens=LONGEST) for i in range(job.slots)]

    def engine() -> Engine:
        return Engine(model, variables, slots=job.slots, capacity=2 * LONGEST)

    def run() -> dict[str, float]:
        one, start = engine(), time.perf_counter()
        for request in requests:
            one.submit(request)
        while one.waiting:
            one.step()
        stats = dataclasses.replace(one.stats)
        while one.busy:
            one.step()
        seconds = time.perf_counter() - start
        full = engine()
        full.run(long)
        return {
            "seconds": seconds,
            "tokens": sum(request.max_new_tokens for request in requests),
            "decode": stats.decoded_tokens / stats.decode_seconds,
            "full": full.stats.decoded_tokens / full.stats.decode_seconds,
            "host": stats.host_seconds / stats.decode_seconds,
            "programs": compiled_programs(),
        }

    return run


def torch_options(count: int) -> dict:
    """How transformers draws so many tokens: from the model's own distribution, as our requests by default.

    Without `top_k` it would keep the 50 most probable tokens, and a checkpoint's generation_config.json may filter too.
    """
    lengths = {"max_new_tokens": count, "min_new_tokens": count, "pad_token_id": 0}
    return {**lengths, "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


def _torch_job(job: Job, dtype: str) -> Callable[[], dict[str, float]]:
    torch, ZayaForCausalLM = import_transformers()
    torch.set_num_threads(job.threads)
    model = ZayaForCausalLM.from_pretrained(job.checkpoint, dtype=getattr(torch, dtype))
    rows, sizes = prompts(job, model.config.vocab_size), lengths(job)

    @torch.no_grad()
    def batch(indices: range) -> None:
        width = max(sizes[i][0] for i in indices)
        tokens, mask = (
            torch.zeros(len(indices), width, dtype=torch.long),
            torch.zeros(len(indices), width, dtype=torch.long),
        )
        for r, i in enumerate(indices):
            tokens[r, width - sizes[i][0] :] = torch.from_numpy(rows[i]).long()
            mask[r, width - sizes[i][0] :] = 1
        count = max(sizes[i][1] for i in indices)
        model.generate(tokens, attention_mask=mask, **torch_options(count))

    def run() -> dict[str, float]:
        start = time.perf_counter()
        for first in range(0, job.requests, job.slots):
            batch(range(first, min(first + job.slots, job.requests)))
        return {"seconds": time.perf_counter() - start, "tokens": sum(count for _, count in sizes)}

    return run
