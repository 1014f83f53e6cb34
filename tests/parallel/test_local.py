"""A model whose rows are spread over devices is the same model: float64, 8 devices, in a process of their own."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from tests.model.helpers import FULL, lay_out, random_variables, small
from zaya_jax.errors import UserError
from zaya_jax.model import Execution, Zaya
from zaya_jax.parallel import batch_shards, each_device, make_mesh, spread

SHARDED = """
import dataclasses, jax, jax.numpy as jnp, numpy as np
from tests.model.helpers import FULL, SLIDING, assert_close, lay_out, quick_jit, random_variables, small
from zaya_jax.model import Execution, Zaya, init_cache
from zaya_jax.model.layout import build
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.parallel import make_mesh

config = small({types})
rows = [[7, -2, 5], [-3, 11], [14], [1, 1, 1, 1], [-14], [5], [-6, 8], [13, -1]]
batch = lay_out(config, rows)
weight = np.random.RandomState(5).standard_normal((8, 14, config.vocab_size))
plain = Execution("float64", **{kernels})
variables = random_variables(config, plain)

def slope(execution, variables):
    def loss(params):
        out = Zaya(config, execution).apply({{"params": params, "balance": variables["balance"]}}, *batch)
        return jnp.sum(jnp.tanh(out.logits) * weight * batch.real[..., None]), out
    return jax.value_and_grad(loss, has_aux=True)(variables["params"])

def remember(execution, variables):
    # Ten columns read at once, then one.
    model, cache, logits = Zaya(config, execution), init_cache(config, execution, 8, 16), []
    one = lay_out(config, [[14]] * 8)
    for columns in (slice(0, 10), slice(10, 11)):
        out = model.apply(variables, *(x[:, columns] for x in one), cache=cache)
        cache = out.cache
        logits.append(out.logits)
    return logits, cache

def compare(run, mesh):
    place = build(config, "stacked", slot_sharding(mesh))
    sharded = dataclasses.replace(plain, mesh=mesh)
    found = quick_jit(lambda v: run(sharded, v))(jax.device_put(variables, place))
    assert_close(found, quick_jit(lambda v: run(plain, v))(variables), 1e-10)

for mesh in {meshes}:
    compare(slope, make_mesh(**mesh))
compare(remember, make_mesh(fsdp=8))
print("fine")
"""
XLA = {"attention": "xla", "cca": "xla", "experts": "xla"}
INTERPRET = dict.fromkeys(XLA, "interpret") | {"remat": "block"}


@pytest.mark.parametrize(
    "kernels, types, meshes",
    [
        (XLA, ("sliding", "full"), [{"fsdp": 2, "expert": 2, "context": 2}]),
        (INTERPRET, ("full", "full"), [{"data": 2, "fsdp": 4}]),
    ],
    ids=["xla", "interpret"],
)
def test_sharded_equals_single(root, monkeypatch, kernels, types, meshes):
    """Logits, routes and the gradient of every parameter; logits and cache of prefill and decoding."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(root))
    program = SHARDED.format(types=types, kernels=kernels, meshes=meshes)
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "fine" in done.stdout, done.stderr


def abstract_mesh(**sizes):
    """A mesh of one device, told to have these sizes: enough for what is refused before it runs."""
    shape = tuple(sizes.get(axis, 1) for axis in ("data", "fsdp", "expert", "context"))
    return jax.sharding.AbstractMesh(shape, ("data", "fsdp", "expert", "context"))


def test_rows_are_spread_over_three_of_the_axes():
    assert batch_shards(None) == batch_shards(abstract_mesh(context=4)) == 1
    assert batch_shards(abstract_mesh(data=2, fsdp=3, expert=4, context=5)) == 24


def test_without_a_mesh_it_is_a_plain_call():
    def add(rows, weights):
        return rows + weights

    assert each_device(None, add, 1, 2) == each_device(make_mesh(), add, 1, 2) == 3
    x = jnp.ones(3)
    assert spread(None, x) is x


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r"the batch does not divide evenly; expected a multiple of 8.*; found 6"):
        each_device(abstract_mesh(fsdp=8), lambda rows, weights: rows, jnp.zeros((6, 2)), ())


def test_a_mesh_is_part_of_an_execution_and_is_hashed():
    execution = Execution(mesh=make_mesh())
    assert hash(execution) == hash(Execution(mesh=make_mesh()))
    assert execution != dataclasses.replace(execution, mesh=None)


def test_a_mesh_of_one_device_changes_nothing():
    config, batch = small((FULL,)), lay_out(small((FULL,)), [[3]])
    variables = random_variables(config, Execution())
    plain, meshed = (Zaya(config, Execution(mesh=m)).apply(variables, *batch).logits for m in (None, make_mesh()))
    assert (plain == meshed).all()


def test_a_mesh_needs_its_axes():
    with pytest.raises(UserError, match=r"Execution\.mesh: no such mesh; expected None or a mesh with the axes data"):
        Execution(mesh=jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,)))
