"""The programs that the tests of meshes run in processes of their own, with 8 devices."""

import dataclasses
import io
import json
import pathlib

import jax
import numpy as np

from tests.evaluation.searching import write_roomy
from tests.model.helpers import assert_close
from tests.rl.rollouts import CONFIG, recorded, trainer, variables
from zaya_jax.parallel import make_mesh
from zaya_jax.rl.batch import learner_batches
from zaya_jax.rl.config import RlConfig
from zaya_jax.rl.learner import Learner, accumulate, divisor, learn, log_probabilities, nothing_yet
from zaya_jax.rl.placing import place_batch
from zaya_jax.rl.run import run
from zaya_jax.train.settings import from_dict
from zaya_jax.train.sharding import abstract_state, programs

ADVANTAGES = (1.0, -0.5, 0.25, -1.0, 2.0, 0.5)
jax.config.update("jax_disable_most_optimizations", True)  # they compile for most of their time


def compare(sizes: dict) -> None:
    """Asserts that a mesh learns as one device does: float64, sums, an update and log-probabilities, to 1e-10."""
    sizes = dict(sizes)
    dispatch, mesh = sizes.pop("dispatch", "auto"), make_mesh(**sizes)
    batches = learner_batches(recorded(), ADVANTAGES, 4, 24) + learner_batches(recorded()[::-1], ADVANTAGES, 4, 24)
    expected = _learnt(trainer(), batches)
    execution = dataclasses.replace(trainer().execution, mesh=mesh, dispatch=dispatch)
    found = _learnt(dataclasses.replace(trainer(), execution=execution), batches)
    assert_close(found, expected, 1e-10, f"{sizes} {dispatch} ")


def _learnt(one, batches):
    mesh, learner = one.execution.mesh, Learner(one)
    moved = jax.tree_util.tree_map_with_path(_moved, variables())
    state = programs(one, mesh).start(moved, 0)
    sums, by = nothing_yet(learner, state), divisor(learner, batches)
    for batch in batches:
        sums = accumulate(learner, state, sums, place_batch(mesh, batch), by)
    live = batches[0]._replace(routes_LBT=np.full_like(batches[0].routes_LBT, -1))
    told = [log_probabilities(learner, state, place_batch(mesh, batch)) for batch in (batches[0], live)]
    real = batches[0].segments_BT > 0
    told = [(np.where(real, logp, 0), np.where(real, routes, 0)) for logp, routes in told]
    new, metrics = learn(learner, state, batches, 1e-2)
    if mesh is not None:
        _check_places(one, mesh, sums, new)
    return jax.device_get((sums, told, new, metrics))


def _moved(path, x):
    """Another policy than the engine's: nothing of the loss is zero."""
    return x * 1.05 if "final_norm" in jax.tree_util.keystr(path) else x


def _check_places(one, mesh, sums, state):
    """Nothing has come to lie elsewhere, and no device has all gradients."""
    for path, want in jax.tree_util.tree_leaves_with_path(abstract_state(one, mesh)):
        (found,) = [x for at, x in jax.tree_util.tree_leaves_with_path(state) if at == path]
        assert found.sharding.is_equivalent_to(want.sharding, found.ndim), jax.tree_util.keystr(path)
    whole = sum(x.nbytes for x in jax.tree.leaves(sums.gradients))
    part = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(sums.gradients))
    assert part < whole / 2, (part, whole)
