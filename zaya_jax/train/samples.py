"""What a model in training writes, wherever it lies: whole rows anew for every token, no cache."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zaya_jax.model.layout import Variables
from zaya_jax.model.zaya import Zaya
from zaya_jax.parallel import batch_shards, column_shards, global_batch, local_rows
from zaya_jax.text.tokenizer import Tokenizer
from zaya_jax.train.config import Samples
from zaya_jax.train.lora import loss_params
from zaya_jax.train.trainer import Trainer


class Prompts(NamedTuple):
    """Rows to be continued, on the devices.

    Attributes:
        tokens_BT: prompts, then room; rows without a prompt fill the batch up.
        lengths_B: of the prompts, on every device.
        texts: the prompts.
    """

    tokens_BT: jax.Array
    lengths_B: jax.Array
    texts: tuple[str, ...]


def open_prompts(samples: Samples, tokenizer: Tokenizer, mesh: Mesh | None) -> Prompts:
    """The prompts of a run, spread over the mesh like any other batch."""
    encoded = [tokenizer.encode_prompt(text) for text in samples.prompts]
    rows = -(-len(encoded) // batch_shards(mesh)) * batch_shards(mesh)
    room = 2 * column_shards(mesh)
    length = -(-(max(map(len, encoded)) + samples.tokens) // room) * room
    tokens_BT, lengths_B = np.zeros((rows, length), np.int32), np.ones(rows, np.int32)
    for row, ids in enumerate(encoded):
        tokens_BT[row, : len(ids)], lengths_B[row] = ids, len(ids)
    if mesh is None:
        return Prompts(jnp.asarray(tokens_BT), jnp.asarray(lengths_B), samples.prompts)
    spread = global_batch(mesh, tokens_BT[list(local_rows(mesh, rows))], rows)
    everywhere = NamedSharding(mesh, PartitionSpec())
    lengths = jax.make_array_from_callback(lengths_B.shape, everywhere, lambda index: lengths_B[index])
    return Prompts(spread, lengths, samples.prompts)


def continuations(
    trainer: Trainer,
    samples: Samples,
    variables: Variables,
    base: Variables | None,
    prompts: Prompts,
    tokenizer: Tokenizer,
    seed: int,
) -> list[str]:
    """What the model makes of each prompt, up to a stop token; the same for the same variables and seed."""
    run = _program(trainer, samples.tokens, samples.temperature)
    params = loss_params(trainer.lora, variables["params"], None if base is None else base["params"])
    tokens_BN = np.asarray(run({**variables, "params": params}, prompts.tokens_BT, prompts.lengths_B, seed))
    return [_text(tokens_BN[row], tokenizer) for row in range(len(prompts.texts))]


def _text(tokens_N: Sequence[int], tokenizer: Tokenizer) -> str:
    ids = [int(token) for token in tokens_N]
    end = next((place for place, token in enumerate(ids) if token in tokenizer.stop_ids), len(ids))
    return tokenizer.decode(ids[:end])


@functools.lru_cache(1)
def _program(trainer: Trainer, count: int, temperature: float):
    mesh = trainer.execution.mesh
    placed = {} if mesh is None else {"out_shardings": NamedSharding(mesh, PartitionSpec())}
    return jax.jit(functools.partial(_sample, trainer, count, temperature), **placed)


def _sample(trainer: Trainer, count: int, temperature: float, variables: Any, tokens_BT, lengths_B, seed) -> jax.Array:
    """[B, count]: one token after the other, each drawn after the model has read its row."""
    model, key = Zaya(trainer.model, trainer.execution), jax.random.key(seed)
    index_T = jnp.arange(tokens_BT.shape[1])

    def write(number: jax.Array, tokens_BT: jax.Array) -> jax.Array:
        ends_B1 = (lengths_B + number)[:, None]
        real_BT = index_T < ends_B1
        positions_BT = jnp.where(real_BT, index_T, 0)
        out = model.apply(variables, tokens_BT, positions_BT, real_BT.astype(jnp.int32), logits="none")
        last_BD = jnp.take_along_axis(out.hidden_BTD, ends_B1[..., None] - 1, axis=1)[:, 0].astype(jnp.float32)
        logits_BV = last_BD @ variables["params"]["embedding"].astype(jnp.float32).T
        noise_BV = jax.random.gumbel(jax.random.fold_in(key, number), logits_BV.shape)
        chosen_B = jnp.argmax(logits_BV + temperature * noise_BV, axis=1).astype(tokens_BT.dtype)
        return jnp.where(index_T == ends_B1, chosen_B[:, None], tokens_BT)

    tokens_BT = jax.lax.fori_loop(0, count, write, tokens_BT)
    return jnp.take_along_axis(tokens_BT, lengths_B[:, None] + jnp.arange(count), axis=1)
