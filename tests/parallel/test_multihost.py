"""Several processes: who started them, meeting, which rows are whose, and that together they compute the same."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests.parallel.composed import run
from zaya_jax.errors import UserError
from zaya_jax.parallel import global_batch, initialize, local_rows, make_mesh
from zaya_jax.parallel.multihost import Processes, launched
from zaya_jax.parallel.rendezvous import meet

SLURM = {
    "SLURM_JOB_ID": "5003",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NODELIST": "node[004-007]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "4",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, None),
        # One process a node has all of its devices.
        (SLURM, Processes("Slurm", 4, 3, f"node004:{61440 + 5003 - 4096}")),
        (SLURM | {"SLURM_STEP_NUM_NODES": "2"}, Processes("Slurm", 4, 3, f"node004:{61440 + 907}", device=0)),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        # A job's own script, before srun, is no step of several tasks.
        ({"SLURM_JOB_ID": "5003", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, None),
        (OPEN_MPI, Processes("Open MPI", 4, 2, f"10.96.0.1:{61440 + 1531576320 // 4096 % 4096}", device=0)),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_MCA_orte_hnp_uri": ""}, Processes("Open MPI", 4, 2)),
        (POD, Processes("Kubernetes", None, 1)),
        (POD | {"JAX_NUM_PROCESSES": "2"}, Processes("Kubernetes", 2, 1)),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
)
def test_launchers_are_known_by_their_marks(environment, expected):
    assert launched(environment) == expected


@pytest.mark.parametrize(
    "nodes, host",
    [("b1", "b1"), ("b1,b2", "b1"), ("n[001-4],b2", "n001"), ("n[07,9-12]", "n07"), ("mi300-[3,5]", "mi300-3")],
)
def test_the_first_node_is_the_coordinator(nodes, host):
    assert launched(SLURM | {"SLURM_STEP_NODELIST": nodes}).coordinator.split(":")[0] == host


def test_one_process_is_left_as_it_is():
    assert initialize(environment={}) is False
    assert initialize(processes=1, environment={}) is False


@pytest.mark.parametrize(
    "given, environment, message",
    [
        ({"processes": 2}, {}, "no launcher: processes cannot find each other; .*found no coordinator"),
        ({"coordinator": "h:1", "processes": 2}, {}, "found no process$"),
        ({"coordinator": "h:1", "processes": 2, "process": 2}, {}, "found h:1, process 2 of 2"),
        ({"coordinator": "h", "processes": 2, "process": 0}, {}, "found h, process 0 of 2"),
        ({}, {k: v for k, v in OPEN_MPI.items() if "uri" not in k}, "Open MPI: .*found no coordinator"),
    ],
)
def test_what_is_missing_is_named(given, environment, message):
    with pytest.raises(UserError, match=message):
        initialize(**given, environment=environment)


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def test_processes_meet_in_any_order():
    port, back = free_port(), []

    def come(index):
        meet(f"localhost:{port}", 3, index, 20)
        back.append(index)

    threads = [threading.Thread(target=come, args=(index,)) for index in (2, 1)]
    for thread in threads:
        thread.start()
    come(0)
    for thread in threads:
        thread.join(30)
    assert sorted(back) == [0, 1, 2]


def test_a_stranger_is_not_counted():
    port, found = free_port(), []

    def host():
        with pytest.raises(UserError, match="found no process 1"):
            meet(f"localhost:{port}", 2, 0, 4)
        found.append(True)

    thread = threading.Thread(target=host)
    thread.start()
    for _ in range(50):
        try:
            with socket.create_connection(("localhost", port), timeout=1) as line:
                line.sendall(b"GET / HTTP/1.1\r\n")
            break
        except OSError:
            time.sleep(0.05)
    thread.join(20)
    assert found


def test_a_missing_process_is_named():
    port, found = free_port(), []

    def come():
        with pytest.raises(UserError, match=r"the processes did not meet; .*found it gave up waiting for the others"):
            meet(f"localhost:{port}", 3, 2, 10)
        found.append(True)

    other = threading.Thread(target=come)
    other.start()
    with pytest.raises(
        UserError, match=rf"{port}: the processes did not meet; expected all 3 processes; found no process 1"
    ):
        meet(f"localhost:{port}", 3, 0, 1.5)
    other.join(20)
    assert found


def test_an_absent_coordinator_and_a_taken_port():
    port = free_port()
    with pytest.raises(UserError, match=r"localhost:\d+: the processes did not meet; expected process 0 there; found"):
        initialize(f"localhost:{port}", 2, 1, timeout=1, environment={})
    with (
        socket.create_server(("", port)),
        pytest.raises(UserError, match="expected a free port; found Address already"),
    ):
        initialize(f"localhost:{port}", 2, 0, timeout=1, environment={})


def test_rows_of_one_process_are_all_rows():
    assert local_rows(make_mesh(), 3) == (0, 1, 2)
    tokens = np.arange(12).reshape(3, 4)
    assert (global_batch(make_mesh(), {"tokens": tokens}, 3)["tokens"] == tokens).all()
    with pytest.raises(UserError, match="not the rows of this process; expected 3 rows; found 2"):
        global_batch(make_mesh(), tokens[:2], 3)


def test_batches_are_spread_over_rows_and_columns(root, monkeypatch):
    run(root, monkeypatch, "placed_batches()")


@pytest.mark.parametrize(
    "layers, meshes",
    [
        (1, [{"expert": 4, "context": 2}]),
        # The first axis that is not 1 is across the processes.
        pytest.param(2, [{"context": 8}, {"data": 2, "context": 4}, {"fsdp": 2, "expert": 4}], marks=pytest.mark.slow),
    ],
    ids=["one mesh", "meshes"],
)
def test_two_processes_compute_what_one_does(root, layers, meshes):
    """Loss, routes and every gradient in float64, over gloo; each process reads its own rows only."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_ENABLE_X64": "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "PYTHONPATH": str(root),
    }
    command = [sys.executable, "-m", "tests.parallel.processes", str(free_port())]
    options = {"cwd": root, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [subprocess.Popen([*command, str(i), str(layers), json.dumps(meshes)], **options) for i in range(2)]
    try:
        said = [process.communicate(timeout=300)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started) and all("fine" in text for text in said), said
