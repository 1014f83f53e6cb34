"""What `validate` checks. Each check is a generator of `Found`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zaya_jax.model import Execution, ModelConfig, Zaya

TRAINING_STEPS = 30


class Found(NamedTuple):
    """A line of the report.

    Attributes:
        outcome: "OK", "FAIL", or "not run".
        what: was found.
        text: more, as Markdown.
        data: more, for machines.
    """

    outcome: str
    what: str
    text: str = ""
    data: Any = None


def machine(repeats: int) -> Iterator[Found]:
    """What `doctor` says."""
    del repeats
    from zaya_jax.report.doctor import examine

    for finding in examine(jax.config.jax_compilation_cache_dir or ""):
        advice = f" -> {finding.advice}" if finding.advice else ""
        yield Found(finding.level, finding.text + advice)


def kernels(repeats: int) -> Iterator[Found]:
    """Each operation in each implementation, next to its definition: results and gradients, two precisions."""
    del repeats
    from kernels_pallas.benchmark_cases import cases

    here = "pallas" if jax.default_backend() == "gpu" else "interpret"
    for name, case in cases(small=True).items():
        for dtype, limit in (("float32", 1e-5), ("bfloat16", 2e-2)):
            made = case.make()
            trained = jax.tree.map(lambda a, dtype=dtype: a.astype(dtype), made[: case.floating])
            arguments = (*trained, *made[case.floating :])
            exact = (*jax.tree.map(lambda a: a.astype("float32"), trained), *made[case.floating :])
            with jax.default_matmul_precision("highest"):
                truth = _gradients(case.operation, "reference", exact, case.floating)
                for implementation in (here, "xla"):
                    found = _gradients(case.operation, implementation, arguments, case.floating)
                    error = max(map(_relative, jax.tree.leaves(found), jax.tree.leaves(truth)))
                    yield _judged(f"{name}, {dtype}, {implementation}", error, limit)
    if here != "pallas":
        yield Found("not run", "the compiled kernels: this is no GPU; they ran in interpret mode")


def _gradients(function: Callable, implementation: str, arguments: tuple, floating: int):
    def run(*arguments):
        rest = arguments[floating:]
        out, pull = jax.vjp(lambda *x: function(*x, *rest, implementation=implementation), *arguments[:floating])
        return out, pull(jax.tree.map(lambda a: jax.random.normal(jax.random.key(9), a.shape).astype(a.dtype), out))

    return jax.jit(run)(*arguments)


def _relative(found: jax.Array, truth: jax.Array) -> float:
    a, b = (np.asarray(x, np.float64) for x in (found, truth))
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))


def _judged(what: str, error: float, limit: float) -> Found:
    outcome = "OK" if error <= limit else "FAIL"
    return Found(outcome, f"{what}: off by {error:.1e} of the largest value (at most {limit:.0e})")


def small_model(**changes) -> ModelConfig:
    """Heads as wide as kernels take them."""
    values = {
        "vocab_size": 512,
        "hidden_size": 128,
        "layer_types": ("sliding", "full") * 2,
        "num_query_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 64,
        "num_experts": 4,
        "expert_hidden_size": 128,
        "router_hidden_size": 64,
        "max_position_embeddings": 1024,
        "sliding_window": 32,
    }
    return ModelConfig(**values | changes)


def model_on_kernels(repeats: int) -> Iterator[Found]:
    """Logits and parameter gradients with the kernels next to those of the XLA path, float32."""
    del repeats
    from zaya_jax.model.layout import initialize

    name = "pallas" if jax.default_backend() == "gpu" else "interpret"
    config = small_model()
    variables = initialize(config, "stacked", jax.random.key(0), "float32")
    tokens = jax.random.randint(jax.random.key(1), (2, 96), 0, config.vocab_size)
    positions, segments = jnp.broadcast_to(jnp.arange(96), (2, 96)), jnp.ones((2, 96), jnp.int32)

    def run(implementation):
        execution = Execution(attention=implementation, cca=implementation, experts=implementation)

        def loss(params):
            out = Zaya(config, execution).apply({**variables, "params": params}, tokens, positions, segments)
            return jnp.square(jax.nn.log_softmax(out.logits)).mean(), (out.logits, out.routes_LBT)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])

    with jax.default_matmul_precision("highest"):
        ((_, (logits, routes)), gradients), ((_, (truth, expected)), wanted) = run(name), run("xla")
    flipped = int((np.asarray(routes) != np.asarray(expected)).sum())
    yield Found("OK" if flipped == 0 else "FAIL", f"{name}: {flipped} of {routes.size} tokens took another expert")
    yield _judged(f"{name}: logits", _relative(logits, truth), 1e-4)
    error = max(map(_relative, jax.tree.leaves(gradients), jax.tree.leaves(wanted)))
    yield _judged(f"{name}: parameter gradients", error, 1e-3)


def goldens(repeats: int) -> Iterator[Found]:
    """Logits that transformers computed, on weights that numpy draws."""
    del repeats
    from tests.parity.committed import FILES, read, weights

    for path in FILES:
        golden, config, batch = read(path)
        execution = Execution()
        with jax.default_matmul_precision("highest"):
            out = jax.jit(Zaya(config, execution).apply)(weights(golden, config, execution), *batch)
        logits = np.asarray(out.logits)[batch.real]
        yield _judged(f"{path.stem}: logits", _relative(logits, golden["logits"]), 2e-5)


def training(repeats: int) -> Iterator[Found]:
    """A few steps on text that repeats itself: the loss has to fall by half."""
    del repeats
    from zaya_jax.data.batch import Batch
    from zaya_jax.train.loop import Budget, run
    from zaya_jax.train.step import init_state
    from zaya_jax.train.trainer import Trainer

    B, T = 8, 128
    tokens = np.tile(np.random.RandomState(0).randint(0, 256, 16), (B, T // 16 + 1))[:, : T + 1].astype(np.int32)
    positions = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T))
    whole = np.ones((B, T), np.int32)
    batch = Batch(tokens[:, :-1], tokens[:, 1:], whole.astype(np.float32), positions, whole)
    trainer = Trainer(small_model(), Execution(dtype="bfloat16"))
    state = init_state(trainer, jax.random.key(0))
    losses, seconds = [], []
    for done in run(trainer, state, lambda _: batch, Budget(steps=TRAINING_STEPS)):
        losses.append(float(done.metrics.loss))
        seconds.append(done.seconds)
    step = statistics.median(np.diff(seconds))
    what = f"{TRAINING_STEPS} steps: loss {losses[0]:.2f} -> {losses[-1]:.2f}, {B * T / step:,.0f} tokens/s"
    fine = np.isfinite(losses).all() and losses[-1] < losses[0] / 2
    yield Found("OK" if fine else "FAIL", what, data={"losses": losses, "seconds": seconds})


def decoding(repeats: int) -> Iterator[Found]:
    """Greedy text, and whether prefill gives its tokens the same log-probabilities that decoding did."""
    del repeats
    from zaya_jax.model.layout import initialize
    from zaya_jax.sampling.generate import generate
    from zaya_jax.sampling.request import Request, Sampling

    config, new = small_model(), 64
    model = Zaya(config, Execution())
    variables = initialize(config, "stacked", jax.random.key(0), "float32")
    prompt = np.arange(32, dtype=np.int32)
    request = Request("", prompt, sampling=Sampling(temperature=0.0), max_new_tokens=new)
    with jax.default_matmul_precision("highest"):
        (answer,) = generate(model, variables, [request])
        start = time.perf_counter()
        generate(model, variables, [request])
        rate = new / (time.perf_counter() - start)
        tokens = jnp.concatenate([jnp.asarray(prompt), jnp.asarray(answer.tokens)])[None]
        places = jnp.arange(tokens.shape[1])[None], jnp.ones_like(tokens)
        out = jax.jit(model.apply)(variables, tokens, *places)
    logprobs = jax.nn.log_softmax(out.logits[0, len(prompt) - 1 : -1])
    expected = np.take_along_axis(np.asarray(logprobs), np.asarray(answer.tokens)[:, None], 1)[:, 0]
    error = float(np.abs(np.asarray(answer.logprobs_model) - expected).max())
    outcome = "OK" if error < 1e-3 else "FAIL"
    yield Found(outcome, f"{new} tokens, {rate:,.0f} a second; log-probabilities {error:.1e} from those of a prefill")


def benchmark(repeats: int) -> Iterator[Found]:
    """The kernels' table."""
    from kernels_pallas.benchmark import failed_kernels, measure, table
    from kernels_pallas.benchmark_cases import cases

    gpu = jax.default_backend() == "gpu"
    found = measure(cases(small=not gpu), repeats, gpu)
    if broken := failed_kernels(found):
        yield Found("FAIL", f"kernels that do not run: {', '.join(broken)}")
    what = "kernels next to XLA" if gpu else "the kernels: this is no GPU; XLA in small shapes, to show that it runs"
    yield Found("OK" if gpu else "not run", what, text=table(found), data=found)
