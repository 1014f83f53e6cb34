"""What one of several processes finds out or fails at, known to all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from zaya_jax.errors import UserError


def is_first() -> bool:
    """Whether this is the process that writes what is written once."""
    return jax.process_index() == 0


def by_first(function: Callable[[], Any]) -> Any:
    """Calls a function in the first process; every process gets its value, or its error.

    All processes have to call this at the same place, from their main thread: it runs on the devices.

    Args:
        function: returns JSON.

    Raises:
        UserError: the function failed. In the first process: what it raised.
    """
    if jax.process_count() == 1:
        return function()
    outcome, failure = {}, None
    if is_first():
        try:
            outcome = {"value": function()}
        except Exception as error:
            outcome, failure = {"error": str(error)}, error
    with jax.transfer_guard("allow"):
        outcome = json.loads(_from_first(json.dumps(outcome).encode()))
    if failure is not None:
        raise failure
    if "error" in outcome:
        raise UserError(outcome["error"])
    return outcome["value"]


def _from_first(text: bytes) -> bytes:
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.frombuffer(text[:size].ljust(size), np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()
