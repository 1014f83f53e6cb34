"""What each of two processes of four devices runs: python -m tests.parallel.processes PORT INDEX LAYERS MESHES."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from tests.model.helpers import FULL, SLIDING, assert_close, lay_out, quick_jit, random_variables, small
from tests.parallel.composed import ROWS, XLA
from zaya_jax.model import Execution, Zaya
from zaya_jax.model.layout import build
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.parallel import global_batch, initialize, local_rows, make_mesh


def main(port: str, index: str, layers: str, meshes: str) -> None:
    """Compares meshes over both processes with one device of this process: loss, routes and gradients."""
    assert initialize(f"localhost:{port}", 2, int(index), timeout=60)
    assert (jax.process_count(), jax.device_count(), jax.local_device_count()) == (2, 8, 4)
    config, plain = small((FULL, SLIDING)[: int(layers)], num_experts=8), Execution("float64", **XLA)
    variables, batch = random_variables(config, plain), lay_out(config, ROWS)
    first = jax.process_index() == 0  # one of them compares
    expected = quick_jit(slope(config, plain))(variables, *batch) if first else None
    for sizes in json.loads(meshes):
        mesh = make_mesh(**sizes)
        mine = local_rows(mesh, len(ROWS))
        # What this process must not read is not there.
        read = [np.where(np.isin(np.arange(len(ROWS)), mine)[:, None], x, 10**6)[list(mine)] for x in batch]
        whole = global_batch(mesh, read, len(ROWS))
        place = build(config, "stacked", slot_sharding(mesh))
        placed = jax.tree.map(lambda x, at: jax.make_array_from_callback(x.shape, at, lambda i: x[i]), variables, place)
        everywhere = NamedSharding(mesh, PartitionSpec())
        run = slope(config, dataclasses.replace(plain, mesh=mesh))
        found = quick_jit(run, out_shardings=everywhere)(placed, *whole)
        if first:
            assert_close(jax.tree.map(lambda x: x.addressable_data(0), found), expected, 1e-10, f"{sizes} ")
        print(sizes, flush=True)
    print("fine")


def slope(config, execution):
    """Loss, routes and the gradient of every parameter."""

    def loss(params, balance, tokens, positions, segments):
        out = Zaya(config, execution).apply({"params": params, "balance": balance}, tokens, positions, segments)
        return jnp.sum(jnp.where(segments[..., None] != 0, jnp.sin(3 * out.logits), 0)), out.routes_LBT

    return lambda v, *batch: jax.value_and_grad(loss, has_aux=True)(v["params"], v["balance"], *batch)


if __name__ == "__main__":
    main(*sys.argv[1:])
