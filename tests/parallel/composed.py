"""The program that the tests of sharded models run in processes of their own, with 8 devices."""

import dataclasses
import functools
import re
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from tests.model.helpers import FULL, SLIDING, assert_close, lay_out, quick_jit, random_variables, small
from zaya_jax.model import Execution, Zaya, init_cache
from zaya_jax.model.layout import build
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.parallel import global_batch, local_rows, make_mesh

ENVIRONMENT = {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    "JAX_ENABLE_X64": "1",
    "JAX_PLATFORMS": "cpu",
}
XLA = {"attention": "xla", "cca": "xla", "experts": "xla"}
INTERPRET = dict.fromkeys(XLA, "interpret")
# Of 16 tokens. Chunks of 2, 4 and 8 begin inside of documents, at their first, second and last token, and in padding.
ROWS = [[9, -2, 5], [-3, 13], [14, 2], [1, 1, 1, 1, 1, 11], [-16], [7, 2, 7], [-6, 10], [4, 4, -8]]


def run(root, monkeypatch, call: str) -> None:
    """Runs `call`, a call of a function of this module, in a process of its own."""
    for name, value in {**ENVIRONMENT, "PYTHONPATH": str(root)}.items():
        monkeypatch.setenv(name, value)
    program = f"from tests.parallel.composed import *; {call}; print('fine')"
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0 and "fine" in done.stdout, done.stdout + done.stderr


def slope(config, execution, batch, routes=None):
    """A function of variables: the gradient of every parameter, loss, logits, routes and counts."""
    weight = np.random.RandomState(5).standard_normal((*batch.tokens.shape, config.vocab_size))

    def loss(params, balance):
        out = Zaya(config, execution).apply({"params": params, "balance": balance}, *batch, routes=routes)
        return jnp.sum(jnp.tanh(out.logits) * weight * batch.real[..., None]), out

    return lambda v: jax.value_and_grad(loss, has_aux=True)(v["params"], v["balance"])


def compare(meshes, types=(SLIDING, FULL), kernels=XLA, rows=ROWS, **changes):
    """Asserts that meshes (sizes, and `dispatch`) compute what one device does: float64, to 1e-10 of the largest."""
    config = small(types, **{"num_experts": 8, **changes})
    batch, plain = lay_out(config, rows), Execution("float64", **kernels)
    variables = random_variables(config, plain)
    expected = quick_jit(slope(config, plain, batch))(variables)
    for sizes in meshes:
        start, sizes = time.monotonic(), dict(sizes)
        dispatch = sizes.pop("dispatch", "auto")
        mesh = make_mesh(**sizes)
        execution = dataclasses.replace(plain, mesh=mesh, dispatch=dispatch)
        placed = jax.device_put(variables, build(config, "stacked", slot_sharding(mesh)))
        found = quick_jit(slope(config, execution, batch))(placed)
        assert_close(found, expected, 1e-10, f"{sizes} {dispatch} ")
        print(sizes, dispatch, f"{time.monotonic() - start:.1f} s", flush=True)


def remember(sizes):
    """Asserts the same of logits and cache, of ten columns read at once and one behind them: columns stay whole."""
    config, plain = small((SLIDING, FULL)), Execution("float64", **XLA)
    variables, one = random_variables(config, plain), lay_out(config, [[11]] * 8)
    mesh = make_mesh(**sizes)

    def run(execution, variables):
        model, cache, logits = Zaya(config, execution), init_cache(config, execution, 8, 16), []
        for columns in (slice(0, 10), slice(10, 11)):
            out = model.apply(variables, *(x[:, columns] for x in one), cache=cache)
            cache = out.cache
            logits.append(out.logits)
        return logits, cache

    expected = quick_jit(functools.partial(run, plain))(variables)
    placed = jax.device_put(variables, build(config, "stacked", slot_sharding(mesh)))
    found = quick_jit(functools.partial(run, dataclasses.replace(plain, mesh=mesh)))(placed)
    assert_close(found, expected, 1e-10)


def replay(sizes):
    """Asserts the same of given routes, some of them live (-1), where skipped tokens pass."""
    config = small((FULL,), num_experts=4, skip_output="identity")
    batch, plain = lay_out(config, ROWS), Execution("float64", **XLA)
    variables = random_variables(config, plain)
    given = np.random.RandomState(0).randint(-1, config.num_router_classes, (1, *batch.tokens.shape)).astype(np.int8)
    expected = quick_jit(slope(config, plain, batch, given))(variables)
    mesh = make_mesh(**sizes)
    placed = jax.device_put(variables, build(config, "stacked", slot_sharding(mesh)))
    found = quick_jit(slope(config, dataclasses.replace(plain, mesh=mesh), batch, given))(placed)
    assert_close(found, expected, 1e-10)
    taken = np.asarray(found[0][1].routes_LBT)
    assert (taken == given)[batch.real[None] & (given >= 0)].all()
    assert (taken == config.num_experts).any()


def emulated_ragged(operand, output, input_offsets, send_sizes, output_offsets, recv_sizes, *, axis_name):
    """`lax.ragged_all_to_all` by its documentation, from everybody's arrays."""
    rows, firsts, sizes, places = (
        jax.lax.all_gather(x, axis_name) for x in (operand, input_offsets, send_sizes, output_offsets)
    )
    me, at = jax.lax.axis_index(axis_name), jnp.arange(output.shape[0])
    for sender in range(rows.shape[0]):
        first, size, place = firsts[sender, me], sizes[sender, me], places[sender, me]
        mine = (at >= place) & (at < place + size)
        sent = jnp.take(rows[sender], first + at - place, axis=0, mode="clip")
        output = jnp.where(mine[:, None], sent, output)
    jax.debug.callback(_same, recv_sizes, sizes[:, me])
    return output


def _same(told, true):
    assert (told == true).all(), f"told to receive {told}, received {true}"


def ragged(sizes):
    """Asserts the same of `dispatch="ragged"` with an emulated collective."""
    jax.lax.ragged_all_to_all = emulated_ragged
    compare([{**sizes, "dispatch": "ragged"}], types=(FULL,))


def moved_in_chunks(sizes):
    """Asserts which collectives the compiled program has, and how large what they give is."""
    config = small((SLIDING,))
    batch, mesh = lay_out(config, ROWS), make_mesh(**sizes)
    execution = Execution("float64", mesh=mesh, **XLA)
    variables = random_variables(config, execution)
    text = quick_jit(slope(config, execution, batch)).lower(variables).compile().as_text()
    moved = re.findall(r" = \(?(\w+)\[([\d,]*)\][^=]* (all-gather|collective-permute|all-to-all)(?:-start)?\(", text)
    local, T = len(ROWS) // mesh.shape["data"], batch.tokens.shape[1]
    keys, halo = f"{local},{T},{config.num_kv_heads},{config.head_dim}", f"{local},2,{config.conv_channels}"
    expected = {
        ("f64", keys, "all-gather"),
        ("s32", f"{local},{T}", "all-gather"),
        ("f64", halo, "collective-permute"),
        ("f64", f"{local},1,{config.delayed_size}", "collective-permute"),
        ("pred", f"{local},1", "collective-permute"),
    }
    assert set(moved) == expected, set(moved) ^ expected


def noise(meshes):
    """Asserts that in float32 what a mesh gives is off from float64 by at most 4 times what one device gives is.

    Results and gradients, each relative to its largest value, are one quantity each: the worst of them counts.
    """
    config, exact = small((SLIDING, FULL), num_experts=8), Execution("float64", **XLA)
    batch, plain = lay_out(config, ROWS), Execution("float32", **XLA)
    variables = random_variables(config, exact)
    narrow = jax.tree.map(lambda x: x.astype(np.float32), variables)
    expected = quick_jit(slope(config, exact, batch))(variables)
    routes = expected[0][1].routes_LBT
    alone = _off(quick_jit(slope(config, plain, batch, routes))(narrow), expected)
    for sizes in meshes:
        mesh = make_mesh(**sizes)
        placed = jax.device_put(narrow, build(config, "stacked", slot_sharding(mesh)))
        found = _off(quick_jit(slope(config, dataclasses.replace(plain, mesh=mesh), batch, routes))(placed), expected)
        assert all(1e-8 < many <= 4 * one for many, one in zip(found, alone, strict=True)), (sizes, found, alone)


def _off(found, expected) -> list[float]:
    """The worst error of the results, and of the gradients."""

    def worst(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)

    return [max(jax.tree.leaves(jax.tree.map(worst, *pair))) for pair in zip(found, expected, strict=True)]


def ordered():
    """Asserts which devices are next to each other: a node's are numbered one after the other."""
    ids = np.vectorize(lambda device: device.id)(make_mesh(data=-1, expert=2, context=2).devices)
    assert ids.shape == (2, 1, 2, 2)
    assert (np.diff(ids, axis=3) == 1).all() and (np.diff(ids, axis=2) == 2).all() and (np.diff(ids, axis=0) == 4).all()


def placed_batches():
    """Asserts that every device holds its rows and columns of a batch, with and without accumulation."""
    mesh = make_mesh(data=2, expert=2, context=2)
    for accumulate in ((), (3,)):
        whole = np.arange(np.prod([*accumulate, 4, 6])).reshape(*accumulate, 4, 6)
        placed = global_batch(mesh, {"tokens": whole}, 4, accumulated=bool(accumulate))["tokens"]
        assert local_rows(mesh, 4) == (0, 1, 2, 3) and (placed == whole).all()
        for shard in placed.addressable_shards:
            (at,) = np.argwhere(mesh.devices == shard.device)
            row, column = 2 * at[0] + at[2], slice(3 * at[3], 3 * at[3] + 3)
            assert (shard.data == whole[..., row : row + 1, column]).all()
