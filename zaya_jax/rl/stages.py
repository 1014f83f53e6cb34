"""A plan of commands, each of which leaves something that the next ones begin with: a cascade, or a study."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Literal

Kind = Literal["data", "training", "rl", "reward", "search"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A step of a plan, which is a command of its own.

    Attributes:
        name: unique.
        title: for readers.
        kind: "training" and "reward" leave a model and losses, "rl" a model and steps, "search" candidates, "data"
            files.
        module: of the command.
        arguments: of the command.
        workdir: what it writes into.
        products: paths below it: the stage is over when each is there, a file or a directory with a whole model.
    """

    name: str
    title: str
    kind: Kind
    module: str
    arguments: tuple[str, ...]
    workdir: str
    products: tuple[str, ...]

    @property
    def command(self) -> str:
        """As it is typed, to run the stage alone."""
        return shlex.join(["python", "-m", self.module, *self.arguments])
