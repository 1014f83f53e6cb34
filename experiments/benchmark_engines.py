"""The two engines of `benchmark_cpu`, each in a process of its own, and the tasks that both do."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable

from experiments.benchmark_shared import import_transformers, random_tokens, receive
from zaya_jax.errors import mistake
from zaya_jax.model import ModelConfig

TASKS = ("prefill_1x1024", "prefill_8x256", "decode_1", "decode_8", "train_4x256")
ENGINES = ("zaya_jax float32", "zaya_jax bfloat16", "transformers float32", "transformers bfloat16")
PROMPT, NEW_TOKENS = 32, 64  # of a decode task
LEARNING_RATE = 1e-4

Run = Callable[[], None]


def mid_config() -> ModelConfig:
    """The architecture of the mid model: 439M parameters, 60M of them active outside of the embedding."""
    return ModelConfig(
        vocab_size=32768,
        hidden_size=1024,
        layer_types=("full",) * 8,
        num_query_heads=8,
        num_kv_heads=2,
        head_dim=128,
        num_experts=16,
        expert_hidden_size=1024,
        router_hidden_size=256,
        max_position_embeddings=8192,
    )


def check(tasks: list[str], engines: list[str]) -> None:
    """Refuses names that do not exist."""
    for flag, given, known in (("--tasks", tasks, TASKS), ("--engines", engines, ENGINES)):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise mistake("unknown name", where=flag, expected=", ".join(known), found=unknown[0])


def compare(task: str, engines: list[str], checkpoint: str, repeats: int, threads: int) -> dict[str, list[float]]:
    """Tokens a second of every repetition of a task, by engine. The engines take turns, the order turned each round.

    A process that trains the mid model holds 10 GB: each of its repetitions has a process of its own.
    """
    rates: dict[str, list[float]] = {engine: [] for engine in engines}
    keep = not task.startswith("train")
    workers = {engine: _Worker(engine, task, checkpoint, threads) for engine in engines if keep}
    for repeat in range(repeats):
        for engine in engines if repeat % 2 == 0 else reversed(engines):
            worker = workers.get(engine) or _Worker(engine, task, checkpoint, threads)
            rates[engine].append(_tokens(task) / worker.seconds())
            if not keep:
                worker.stop()
    for worker in workers.values():
        worker.stop()
    return rates


class _Worker:
    """A process that has prepared one task of one engine, and runs it when asked."""

    def __init__(self, engine: str, task: str, checkpoint: str, threads: int):
        context = multiprocessing.get_context("spawn")
        self._engine = engine
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, engine, task, checkpoint, threads), daemon=True)
        self._process.start()
        theirs.close()  # so that its death is the end of the pipe
        self._answer()

    def seconds(self) -> float:
        """Of one repetition."""
        self._pipe.send("run")
        return self._answer()

    def stop(self) -> None:
        self._pipe.send("stop")
        self._process.join()

    def _answer(self) -> float:
        return receive(self._pipe, self._engine)


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """Medians as Markdown; the ratio is that of the better precision of each library."""
    engines = list(next(iter(results.values())))
    lines = ["| task (tokens/s) | " + " | ".join(engines) + " | ratio |", "|---" * (len(engines) + 2) + "|"]
    for task, rates in results.items():
        medians = {engine: statistics.median(values) for engine, values in rates.items()}
        best = {
            library: max((m for e, m in medians.items() if e.startswith(library)), default=float("nan"))
            for library in ("zaya_jax", "transformers")
        }
        cells = " | ".join(f"{medians[engine]:,.0f}" for engine in engines)
        lines.append(f"| {task} | {cells} | {best['zaya_jax'] / best['transformers']:.2f} |")
    return "\n".join(lines)


def _tokens(task: str) -> int:
    """Tokens that one repetition of a task processes; the first token of an answer comes from the prefill."""
    kind, size = task.split("_")
    if kind == "decode":
        return int(size) * (NEW_TOKENS - 1)
    rows, columns = map(int, size.split("x"))
    return rows * columns


def _serve(pipe, engine: str, task: str, checkpoint: str, threads: int) -> None:
    """A worker: prepares its task, then runs it whenever asked and answers with the seconds it took."""
    library, dtype = engine.split(" ")
    prepare = _jax_task if library == "zaya_jax" else _torch_task
    run = prepare(task, checkpoint, dtype, threads)
    run()  # compiles, and warms up
    pipe.send(0.0)
    while pipe.recv() == "run":
        pipe.send(run())


def _timed(function: Run) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _jax_task(task: str, checkpoint: str, dtype: str, threads: int) -> Callable[[], float]:
    del threads
    import jax
    import numpy as np

    import zaya_jax

    kind, size = task.split("_")
    if kind == "train":
        return _jax_training(checkpoint, dtype, *map(int, size.split("x")))
    model, variables, _ = zaya_jax.load(checkpoint, dtype=dtype)
    if kind == "decode":
        return _jax_decoding(model, variables, int(size))
    tokens = random_tokens(*map(int, size.split("x")), model.config.vocab_size)
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    call = jax.jit(lambda v, *x: model.apply(v, *x).logits)
    return lambda: _timed(lambda: call(variables, tokens, positions, np.ones_like(tokens)).block_until_ready())


def _jax_decoding(model, variables, rows: int) -> Callable[[], float]:
    """Seconds from the first token of the answers to the last one: a streamed answer tells when each came."""
    from zaya_jax.sampling.generate import stream
    from zaya_jax.sampling.request import Request, Sampling

    prompts = random_tokens(rows, PROMPT, model.config.vocab_size)
    requests = [
        Request(str(i), row, sampling=Sampling(temperature=0.0), max_new_tokens=NEW_TOKENS)
        for i, row in enumerate(prompts)
    ]

    def run() -> float:
        answers = stream(model, variables, requests, chunk=NEW_TOKENS)
        next(answers)
        return _timed(lambda: list(answers))

    return run


def _jax_training(checkpoint: str, dtype: str, rows: int, columns: int) -> Callable[[], float]:
    import jax
    import numpy as np

    from zaya_jax.checkpoint import load_variables, open_checkpoint
    from zaya_jax.data.batch import Batch
    from zaya_jax.model import Execution
    from zaya_jax.train.optimizer import OptimizerConfig
    from zaya_jax.train.step import start_from, train_step
    from zaya_jax.train.trainer import Trainer

    opened = open_checkpoint(checkpoint)
    trainer = Trainer(opened.config, Execution(dtype=dtype), OptimizerConfig(name="adamw"))
    state = [start_from(trainer, load_variables(opened, "stacked", "float32"), jax.random.key(0))]
    tokens = random_tokens(rows, columns + 1, opened.config.vocab_size)
    ones = np.ones((rows, columns), np.int32)
    positions = np.broadcast_to(np.arange(columns, dtype=np.int32), ones.shape)
    batch = Batch(tokens[:, :-1], tokens[:, 1:], ones.astype(np.float32), positions, ones)
    rate = np.float32(LEARNING_RATE)

    def step() -> None:
        state[0], metrics = train_step(trainer, state[0], batch, rate)
        jax.block_until_ready((state[0], metrics))

    return lambda: _timed(step)


def _torch_task(task: str, checkpoint: str, dtype: str, threads: int) -> Callable[[], float]:
    torch, ZayaForCausalLM = import_transformers()
    torch.set_num_threads(threads)
    kind, size = task.split("_")
    # Training keeps float32 parameters in both libraries; "bfloat16" computes in it, under autocast.
    stored = torch.float32 if kind == "train" else getattr(torch, dtype)
    model = ZayaForCausalLM.from_pretrained(checkpoint, dtype=stored)
    if kind == "train":
        return _torch_training(model, dtype, *map(int, size.split("x")))
    if kind == "decode":
        return _torch_decoding(model, int(size))
    tokens = torch.from_numpy(random_tokens(*map(int, size.split("x")), model.config.vocab_size)).long()

    @torch.no_grad()
    def forward() -> None:
        model(tokens, use_cache=False)

    return lambda: _timed(forward)


def _torch_decoding(model, rows: int) -> Callable[[], float]:
    import torch

    prompts = torch.from_numpy(random_tokens(rows, PROMPT, model.config.vocab_size)).long()

    @torch.no_grad()
    def run() -> float:
        out = model(prompts, use_cache=True, logits_to_keep=1)
        token, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
        start = time.perf_counter()
        for _ in range(NEW_TOKENS - 1):
            out = model(token, past_key_values=cache, use_cache=True)
            token = out.logits[:, -1:].argmax(-1)
        return time.perf_counter() - start

    return run


def _torch_training(model, dtype: str, rows: int, columns: int) -> Callable[[], float]:
    import torch

    tokens = torch.from_numpy(random_tokens(rows, columns + 1, model.config.vocab_size)).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = model(tokens[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return lambda: _timed(step)
