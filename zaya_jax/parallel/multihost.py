"""Several processes as one program: finding each other, and batches of which each process holds some rows.

Every process runs the same program and sees all devices; it reads what its own devices hold and nothing else.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zaya_jax.errors import mistake
from zaya_jax.parallel.local import check_columns, check_rows, rows_spec
from zaya_jax.parallel.rendezvous import meet

_PORTS = 4096  # the last ones of 65,536: a job's number picks one, so that jobs on one node differ


@dataclasses.dataclass(frozen=True)
class Processes:
    """How a launcher has started this process.

    Attributes:
        launcher: its name.
        count: processes in all; None if only the launcher's own service knows.
        index: of this one.
        coordinator: host:port of process 0; None if it has to be found out or told.
        device: the only one of the node's devices that is this process's; None for all of them.
    """

    launcher: str
    count: int | None = None
    index: int | None = None
    coordinator: str | None = None
    device: int | None = None


def launched(environment: Mapping[str, str]) -> Processes | None:
    """Who started this process beside others, from its environment: Slurm's srun, Open MPI or Kubernetes, or nobody.

    With one process a node, it has all of the node's devices; with more, each has the one of its own number.
    (Left to itself, `jax.distributed` gives one device to the only process of a node too.)
    """
    get = environment.get
    if int(get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in environment:
        alone = get("SLURM_STEP_NUM_NODES") == get("SLURM_STEP_NUM_TASKS")
        coordinator = f"{_first_host(environment['SLURM_STEP_NODELIST'])}:{_port(int(environment['SLURM_JOB_ID']))}"
        return _numbered(
            "Slurm", environment, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", alone, coordinator
        )
    if int(get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        alone = get("OMPI_COMM_WORLD_LOCAL_SIZE", "1") == "1"
        names = (f"OMPI_COMM_WORLD_{name}" for name in ("SIZE", "RANK", "LOCAL_RANK"))
        return _numbered("Open MPI", environment, *names, alone, _of_open_mpi(get("OMPI_MCA_orte_hnp_uri", "")))
    # A pod is not one of many for being in Kubernetes: an indexed job numbers its pods.
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        count = environment.get("JAX_NUM_PROCESSES")
        return Processes("Kubernetes", count and int(count), int(environment["JOB_COMPLETION_INDEX"]))
    return None


def _numbered(launcher, environment, count, index, local, alone: bool, coordinator) -> Processes:
    device = None if alone else int(environment[local])
    return Processes(launcher, int(environment[count]), int(environment[index]), coordinator, device)


def _first_host(nodes: str) -> str:
    """`node001` of `node001`, `node001,b2`, `node[001-015],b2` and `node[001,007-015]`."""
    prefix, first = re.match(r"([^,\[]+)(?:\[([^,\-\]]+))?", nodes).groups()
    return prefix + (first or "")


def _port(job: int) -> int:
    return 65536 - _PORTS + job % _PORTS


def _of_open_mpi(uri: str) -> str | None:
    """From an address like `1531576320.0;tcp://10.96.0.1,10.148.0.1:34911`; a job's number is a multiple of 4,096."""
    found = re.match(r"(\d+)\.\d+;tcp://([^,:]+)", uri)
    return found and f"{found[2]}:{_port(int(found[1]) // _PORTS)}"


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    timeout: int = 300,
    environment: Mapping[str, str] | None = None,
) -> bool:
    """Joins this process with the others that were started with it; to be called before anything touches a device.

    Args:
        coordinator: host:port of process 0, where the launcher does not tell, or to overrule it; the variable
            JAX_COORDINATOR_ADDRESS does the same.
        processes, process: how many there are, and which this one is, likewise.
        timeout: seconds to wait for the others.
        environment: where launchers leave their marks; `os.environ` by default.

    Returns:
        Whether there are several processes. One alone is left as it is.

    Raises:
        UserError: something is missing, or the others were not found.
    """
    environment = os.environ if environment is None else environment
    found = launched(environment) or Processes("no launcher")
    count = found.count if processes is None else processes
    index = found.index if process is None else process
    coordinator = coordinator or environment.get("JAX_COORDINATOR_ADDRESS") or found.coordinator
    if found.launcher == "no launcher" and (count is None or count == 1) and index in (None, 0):
        return False
    by_service = found.launcher == "Kubernetes" and None in (coordinator, count)
    if not by_service:
        _check_complete(found.launcher, coordinator, count, index)
        meet(coordinator, count, index, timeout)
    jax.distributed.initialize(
        coordinator,
        count,
        index,
        local_device_ids=None if found.device is None else [found.device],
        cluster_detection_method="k8s" if by_service else "deactivate",
        initialization_timeout=timeout,
    )
    return jax.process_count() > 1


def _check_complete(launcher: str, coordinator: str | None, count: int | None, index: int | None) -> None:
    given = {"coordinator": coordinator, "processes": count, "process": index}
    if missing := [name for name, value in given.items() if value is None]:
        expected = "coordinator (host:port of process 0), processes (how many) and process (which one, from 0)"
        raise mistake("processes cannot find each other", where=launcher, expected=expected, found=f"no {missing[0]}")
    if not 0 <= index < count or not re.fullmatch(r".+:\d+", coordinator):
        expected = "a coordinator host:port, and a process from 0 on and below their number"
        found = f"{coordinator}, process {index} of {count}"
        raise mistake("processes cannot find each other", where=launcher, expected=expected, found=found)


def local_rows(mesh: Mesh, rows: int) -> tuple[int, ...]:
    """Which of a batch's rows the devices of this process hold, in order; each once, however many hold parts of it.

    Raises:
        UserError: the batch does not divide evenly.
    """
    check_rows(mesh, rows)
    held = NamedSharding(mesh, rows_spec()).addressable_devices_indices_map((rows,)).values()
    return tuple(sorted({row for (part,) in held for row in range(*part.indices(rows))}))


def global_batch(mesh: Mesh, local: Any, rows: int, *, accumulated: bool = False) -> Any:
    """A batch spread over the mesh, from the rows that this process has read.

    Args:
        local: a tree of numpy arrays [local rows, T], `local_rows` in this order.
        rows: of the whole batch.
        accumulated: arrays have an axis of microbatches before that of the rows, [A, local rows, T].

    Raises:
        UserError: the batch does not divide evenly, or not these rows were read.
    """
    mine = local_rows(mesh, rows)
    place = NamedSharding(mesh, PartitionSpec(*[None] * accumulated, *rows_spec(columns=True)))

    def spread(x: np.ndarray) -> jax.Array:
        axis = int(accumulated)
        if x.shape[axis] != len(mine):
            raise mistake("not the rows of this process", expected=f"{len(mine)} rows", found=x.shape[axis])
        check_columns(mesh, x.shape[axis + 1])
        shape = (*x.shape[:axis], rows, *x.shape[axis + 1 :])
        return jax.make_array_from_callback(shape, place, lambda index: x[_within(mine, index, axis)])

    return jax.tree.map(spread, local)


def _within(mine: tuple[int, ...], index: tuple[slice, ...], axis: int) -> tuple[slice, ...]:
    """A device's part of the whole batch as a part of what this process holds, where its rows are consecutive too."""
    part = index[axis]
    first = mine.index(part.start or 0)
    stop = None if part.stop is None else first + part.stop - (part.start or 0)
    return (*index[:axis], slice(first, stop), *index[axis + 1 :])
