"""The one error that a user's mistake ends in."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user gave: a file, a flag, a config key, a tensor.

    The message is one line: what is wrong and where, what was expected, what was found, what to do.
    Launchers print it on stderr and exit with code 2 (`experiments/launch.py`).
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def mistake(
    what: str, *, where: object = None, expected: object = None, found: object = None, fix: str = ""
) -> UserError:
    """Builds a `UserError` from its parts, in the order that a reader needs them.

    Args:
        what: what is wrong, e.g. "tensor has the wrong shape".
        where: file, key, tensor or line.
        expected: what would have been right.
        found: what was there instead.
        fix: what to do about it.
    """
    parts = [f"{where}: {what}" if where is not None else what]
    if expected is not None:
        parts.append(f"expected {expected}")
    if found is not None:
        parts.append(f"found {found}")
    if fix:
        parts.append(fix)
    return UserError("; ".join(parts))
