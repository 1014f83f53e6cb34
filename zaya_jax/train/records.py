"""One record to several places."""

from __future__ import annotations

from typing import Any, NamedTuple

from zaya_jax.report.sinks import Sink


class Records(NamedTuple):
    """Writes records to all of its sinks, or nowhere."""

    sinks: tuple[Sink, ...]

    def write(self, **values: Any) -> None:
        """Gives a record to every sink."""
        for sink in self.sinks:
            sink.write(**values)


NOWHERE = Records(())  # of a process that writes nothing
