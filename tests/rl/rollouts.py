"""Rollouts of a tiny model by the real engine, at a precision of one's choice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.sampling.models import CONFIG, tiny
from zaya_jax.model import Execution, Zaya
from zaya_jax.model.layout import unstack
from zaya_jax.rl.rollout import Rollout, rollout
from zaya_jax.sampling.engine import Engine
from zaya_jax.sampling.request import Request, Sampling
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.trainer import Trainer

PROMPTS = ((3, 40, 41), (3, 50, 51, 52, 53, 54, 55, 56), (3, 60))
ANSWERS = (9, 4, 14, 6, 11, 1)


def trainer(dtype: str = "float64") -> Trainer:
    """Trains the tiny model, the routers' biases standing still."""
    return Trainer(CONFIG, Execution(dtype=dtype), OptimizerConfig("muon", momentum=0.0), balance_rate=0.0)


def variables(dtype: str = "float64"):
    """The tiny model's, stacked, in the exact type of a precision."""
    exact = Execution(dtype=dtype).exact_dtype
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x), exact), tiny()[1])


@functools.cache
def recorded(dtype: str = "float64", min_p: float = 0.0, kept: int = 0) -> tuple[Rollout, ...]:
    """Answers to prompts of several lengths, two each; drawn from at most `kept` ids, if that is not 0."""
    return drawn(variables(dtype), dtype, min_p, kept)


def drawn(weights, dtype: str, min_p: float = 0.0, kept: int = 0) -> tuple[Rollout, ...]:
    """The answers of other weights."""
    return answers(engine_of(weights, dtype, kept), dtype, min_p)


def engine_of(weights, dtype: str, kept: int = 0) -> Engine:
    """An engine of the tiny model with these weights."""
    model = Zaya(CONFIG, Execution(dtype=dtype, layout="unstacked"))
    with jax.enable_x64(dtype == "float64"):
        return Engine(model, unstack(CONFIG, weights), slots=4, capacity=32, chunk=8, kept=kept)


def answers(engine: Engine, dtype: str, min_p: float = 0.0) -> tuple[Rollout, ...]:
    """An engine's answers to the prompts."""
    with jax.enable_x64(dtype == "float64"):
        prompts = [PROMPTS[i // 2] for i in range(len(ANSWERS))]
        requests = [
            Request(str(i), prompt, seed=i, max_new_tokens=count, sampling=Sampling(min_p=min_p))
            for i, (prompt, count) in enumerate(zip(prompts, ANSWERS, strict=True))
        ]
        completions = engine.run(requests)
    return tuple(rollout(prompt, one) for prompt, one in zip(prompts, completions, strict=True))
