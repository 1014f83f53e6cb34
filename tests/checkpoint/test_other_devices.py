"""One checkpoint, written and read on other devices and in other numbers of processes."""

import socket

import jax
import numpy as np
import pytest

from tests.checkpoint.train_states import answers
from zaya_jax.checkpoint.train_state import Checkpoints, restore

VALUES = np.arange(64 * 16, dtype=np.float32).reshape(64, 16)


def sharded():
    """The values, their rows over all devices of all processes."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    return jax.make_array_from_callback(VALUES.shape, sharding, lambda index: VALUES[index])


def at_work(send, number, directory, processes, port, writes):
    """Saves, or reads what was saved; sends how many devices all processes have, and whether its rows are right."""
    jax.config.update("jax_num_cpu_devices", 4)
    if processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"localhost:{port}", processes, number)
    state = {"rows": sharded()}
    if writes:
        with Checkpoints(directory) as checkpoints:
            checkpoints.save(1, state, {})
    shards = restore(directory, state).state["rows"].addressable_shards
    right = all(np.array_equal(shard.data, VALUES[shard.index]) for shard in shards)
    send((jax.device_count(), right))


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("writers, readers", [(1, 2), (2, 1)])
def test_other_devices_and_processes_read_what_was_written(tmp_path, writers, readers):
    for processes, writes in ((writers, True), (readers, False)):
        arguments = (tmp_path, processes, free_port(), writes)
        found = answers(at_work, *arguments, processes=processes)
        assert found == [(4 * processes, True)] * processes
    alone = restore(tmp_path, {"rows": jax.ShapeDtypeStruct(VALUES.shape, np.float32)}).state["rows"]
    np.testing.assert_array_equal(alone, VALUES)
