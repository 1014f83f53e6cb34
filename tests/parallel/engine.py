"""The program that tests of the engine on a mesh run in a process of their own, with 8 devices."""

import dataclasses

import jax
import numpy as np

from tests.model.helpers import FULL, SLIDING, random_variables, small
from tests.parallel.composed import XLA
from zaya_jax.model import Execution, Zaya
from zaya_jax.model.layout import build
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.parallel import make_mesh
from zaya_jax.sampling.engine import Engine
from zaya_jax.sampling.request import Request

SETTINGS = {"slots": 8, "capacity": 64, "chunk": 16, "burst": 8, "known_bytes": 2**20}


def engine_on(sizes: dict) -> None:
    """Answers on a mesh are those of one device, in float64: tokens, routes and (float32) log-probabilities."""
    jax.config.update("jax_disable_most_optimizations", True)  # it compiles for most of its time
    sizes = dict(sizes)
    dispatch = sizes.pop("dispatch", "auto")
    config, plain = small((SLIDING, FULL), num_experts=8), Execution("float64", **XLA)
    variables = random_variables(config, plain)
    rng = np.random.default_rng(0)
    requests = [
        Request(f"r{i}", rng.integers(0, config.vocab_size, n), seed=i, max_new_tokens=int(rng.integers(1, 20)))
        for i, n in enumerate([1, 28, 3, 17, 16, 9, 25, 2, 28, 28])
    ]
    requests += [dataclasses.replace(requests[1], id="again", seed=99)]
    expected = Engine(Zaya(config, plain), variables, **SETTINGS).run(requests)
    mesh = make_mesh(**sizes)
    place = build(config, "stacked", slot_sharding(mesh))
    placed = jax.tree.map(lambda x, at: jax.device_put(x, at), variables, place)
    engine = Engine(Zaya(config, dataclasses.replace(plain, mesh=mesh, dispatch=dispatch)), placed, **SETTINGS)
    cache = engine._held.cache.layers[0].k_BSKH
    assert len({shard.device for shard in cache.addressable_shards if shard.replica_id == 0}) > 1, "rows are spread"
    for found, want in zip(engine.run(requests), expected):
        np.testing.assert_array_equal(found.tokens, want.tokens)
        np.testing.assert_array_equal(found.routes_LT, want.routes_LT)
        np.testing.assert_allclose(found.logprobs_model, want.logprobs_model, rtol=0, atol=1e-6)
    assert engine.stats.known_tokens > 0
