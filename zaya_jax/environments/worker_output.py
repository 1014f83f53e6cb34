"""What a worker's environments print: read, counted and thrown away by its guardian, which bounds it call by call.

A flood would else fill a pipe, or a disk, or go on until the call's time is up.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import struct
import termios
import time
from collections.abc import Callable

MOST_PRINTED = 16 << 20  # bytes of a call, on standard output and error together
_COUNTED_WITHIN = 1.0  # seconds


class Printed:
    """A pipe for what environments print, and how much the guardian has read out of it since a call began.

    Made before the guardian forks the worker, which has `writer` from then on; the guardian has `reader`.

    Attributes:
        flooded: whether the guardian has ended the worker for it.
    """

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.flooded = False
        self._shared = memoryview(mmap.mmap(-1, 16)).cast("q")  # of both processes: bytes, whether some are being read

    def drain(self, end: Callable[[], None]) -> None:
        """Reads and counts (the guardian's thread); `end`, which does not return, ends a call that printed too much."""
        while select.select([self.reader], [], [])[0]:
            self._shared[1] = 1
            if not (piece := os.read(self.reader, 1 << 16)):
                return
            self._shared[0] += len(piece)
            if self._shared[0] > MOST_PRINTED:
                self.flooded = True  # before the worker dies of it, which another thread waits for
                end()
            self._shared[1] = 0

    def begin(self) -> None:
        """A call begins (the worker)."""
        self._shared[0] = 0

    def settle(self) -> None:
        """Waits until all that was printed is counted (the worker), so that it counts for this call and no other."""
        deadline = time.monotonic() + _COUNTED_WITHIN  # a child that goes on printing is no reason to wait
        while ((self._waiting() or self._shared[1]) and time.monotonic() < deadline) or self._shared[0] > MOST_PRINTED:
            time.sleep(0.0001)

    def _waiting(self) -> int:
        return struct.unpack("i", fcntl.ioctl(self.writer, termios.FIONREAD, b"\0\0\0\0"))[0]
