"""Compares this library with transformers on this machine's CPU: the same weights, side by side.

    python -m experiments.benchmark_cpu
    python -m experiments.benchmark_cpu --tasks=decode_1,decode_8 --repeats=7

A random "mid" model (hidden 1024, 8 layers, 16 experts of 1024, vocabulary 32768) is written as a checkpoint and loaded
by both. Each runs in a process of its own, in turn, one repetition at a time, so that a change of the machine's speed
meets both. The table gives medians in tokens a second, and their ratio; transformers is given the better of its
float32 and bfloat16. Needs the extra `benchmarks`: pip install -e .[benchmarks]
"""

import time

from absl import flags

TASKS = ("prefill_1x1024", "prefill_8x256", "decode_1", "decode_8", "train_4x256")
ENGINES = ("zaya_jax float32", "zaya_jax bfloat16", "transformers float32", "transformers bfloat16")

FLAGS = flags.FLAGS
flags.DEFINE_list("tasks", list(TASKS), f"Of {', '.join(TASKS)}.")
flags.DEFINE_list("engines", [ENGINES[0], *ENGINES[2:]], f"Of {', '.join(ENGINES)}.")
flags.DEFINE_integer("repeats", 5, "Counted repetitions of each, after one warm-up.", lower_bound=1)
flags.DEFINE_integer("new_tokens", 64, "Tokens that a decode task generates.", lower_bound=2)
flags.DEFINE_integer("threads", 2, "Threads of torch (XLA uses all cores).", lower_bound=1)
flags.DEFINE_string("output", None, "Where the figures go, as JSON.")

MID = {
    "vocab_size": 32768,
    "hidden_size": 1024,
    "num_layers": 8,
    "num_query_heads": 8,
    "num_kv_heads": 2,
    "head_dim": 128,
    "num_experts": 16,
    "expert_hidden_size": 1024,
    "router_hidden_size": 256,
}


def mid_config():
    """The architecture of the mid model."""
    from zaya_jax.model import ModelConfig

    sizes = {name: size for name, size in MID.items() if name != "num_layers"}
    return ModelConfig(**sizes, layer_types=("full",) * MID["num_layers"], max_position_embeddings=8192)


def timed(function) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def tokens_of(task: str, new_tokens: int) -> int:
    """Tokens that one repetition of a task processes."""
    kind, size = task.split("_")
    if kind == "decode":
        return int(size) * new_tokens
    batch, length = map(int, size.split("x"))
    return batch * length


def jax_tasks(directory: str, dtype: str, new_tokens: int):
    """Task -> a function that runs it once and waits for the result."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    import zaya_jax
    from zaya_jax.sampling import Sampling, generate_tokens

    model, variables, _ = zaya_jax.load(directory, dtype=dtype)
    rng = np.random.default_rng(0)

    def batch(rows, columns):
        tokens = jnp.asarray(rng.integers(0, MID["vocab_size"], (rows, columns)), jnp.int32)
        return tokens, jnp.broadcast_to(jnp.arange(columns, dtype=jnp.int32), tokens.shape), jnp.ones_like(tokens)

    def prefill(rows, columns):
        call, inputs = jax.jit(lambda v, *x: model.apply(v, *x).logits), batch(rows, columns)
        return lambda: call(variables, *inputs).block_until_ready()

    def decode(rows):
        prompts = np.asarray(batch(rows, 32)[0]).tolist()
        return lambda: generate_tokens(model, variables, prompts, Sampling(temperature=0.0), new_tokens)

    def train(rows, columns):
        inputs, optimizer = batch(rows, columns), optax.adamw(1e-4)
        state = [variables["params"], jax.jit(optimizer.init)(variables["params"])]

        def loss(params):
            logits = model.apply({"params": params, "balance": variables["balance"]}, *inputs).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], inputs[0][:, 1:]).mean()

        @jax.jit
        def step(params, moments):
            value, gradient = jax.value_and_grad(loss)(params)
            updates, moments = optimizer.update(gradient, moments, params)
            return optax.apply_updates(params, updates), moments, value

        def run():
            *state[:], value = step(*state)
            value.block_until_ready()

        return run

    return {"prefill": prefill, "decode": decode, "train": train}
