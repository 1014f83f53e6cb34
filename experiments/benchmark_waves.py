"""What `benchmark_rl` measures: waves of answers, by an engine alone and by the loop around it."""

from __future__ import annotations

import time
from collections.abc import Callable

from zaya_jax.checkpoint import load_variables, open_checkpoint, resolve
from zaya_jax.environments.failures import Failures
from zaya_jax.environments.workers import Workers
from zaya_jax.rl import completion
from zaya_jax.rl.config import RlConfig
from zaya_jax.rl.devices import divide
from zaya_jax.rl.gathering import Asking, draw
from zaya_jax.rl.generation import answer, make_requests
from zaya_jax.rl.run import make_engine
from zaya_jax.rl.scoring import score
from zaya_jax.train.exporting import open_tokenizer

Wave = dict[str, float]


def measure(config: RlConfig, repeats: int, groups: int) -> tuple[list[Wave], list[Wave]]:
    """Tokens and seconds of every wave, of the engine alone and of the loop."""
    checkpoint = open_checkpoint(resolve(config.initial))
    tokenizer, _ = open_tokenizer(config.initial)
    variables = load_variables(checkpoint, "stacked", "float32")
    engine = make_engine(config, checkpoint.config, divide(config), variables)
    engine_alone, loop = [], []
    with Workers(config.workers, config.limits) as workers:
        asking = Asking(config, engine, tokenizer, workers, Failures(config.failures))
        asked, progress = draw(asking, completion.start(config.schedule), groups)

        def alone():
            for one in asked:
                for request in make_requests(one, config.decoding, tokenizer, config.seed):
                    engine.submit(request)
            tokens = 0
            while engine.busy:
                tokens += sum(len(delta.tokens) for delta in engine.step())
            return {"tokens": tokens}

        def as_the_loop():
            answered, spent = answer(engine, tokenizer, asked, config.decoding, workers.verify, config.seed)
            for one in answered:
                score(config.rewards, config.schedule, progress, one, 0)
            return {"tokens": spent.tokens, "waiting": spent.waiting}

        for side in (alone, as_the_loop):  # compiles, starts the workers
            side()
        for _ in range(repeats):
            engine_alone.append(_timed(alone))
            loop.append(_timed(as_the_loop))
    return engine_alone, loop


def _timed(side: Callable[[], Wave]) -> Wave:
    start = time.perf_counter()
    found = side()
    return found | {"seconds": time.perf_counter() - start}
