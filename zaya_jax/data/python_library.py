"""Real text that every Python ships: its standard library's sources and the language reference behind `help("...")`.

About 10 MB in Python 3.11: enough for a run of minutes, without a download.
"""

from __future__ import annotations

import functools
import hashlib
import pathlib
import sysconfig
from collections.abc import Mapping
from types import MappingProxyType

from zaya_jax.data.python_docs import python_topics
from zaya_jax.errors import mistake

PARTS = ("train", "held_out", "all")
HOLD_OUT_SHARE = 20  # one document in so many is held out
# Not the library's own text (site-packages), a second copy of it (lib2to3 has another tokenizer, ...), tests, tables
# and long literals, in which a small model gets lost; pydoc_data's pages come from `python_topics`.
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "encodings", "pydoc_data"}
_LEFT_OUT_FILES = {"html/entities.py", "stringprep.py"}


def documents(part: str) -> dict[str, str]:
    """Documents by name ("library/json/decoder.py", "topics/raise"), sorted.

    Whether one is held out depends on its name alone: every Python splits alike, and another file moves none.

    Args:
        part: "train", "held_out" (about one in 20) or "all".

    Raises:
        UserError: there is no such part, or this Python has no sources.
    """
    if part not in PARTS:
        raise mistake("no such part of the Python library", expected=" or ".join(PARTS), found=repr(part))
    return {name: text for name, text in _all().items() if part == "all" or is_held_out(name) == (part == "held_out")}


def is_held_out(name: str) -> bool:
    """Whether the document of this name is held out."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HOLD_OUT_SHARE == 0


@functools.lru_cache(maxsize=1)  # both parts are usually wanted
def _all() -> Mapping[str, str]:
    pages = {f"topics/{name}": text for name, text in python_topics().items()}
    return MappingProxyType(dict(sorted((_library() | pages).items())))


def _library() -> dict[str, str]:
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    found = {}
    for file in root.rglob("*.py"):
        name = file.relative_to(root)
        if _is_wanted(name):
            text = _read(file)
            if text:
                found[f"library/{name.as_posix()}"] = text
    if not found:
        raise mistake("no sources of the standard library", where=root, fix="use a Python that ships them")
    return found


def _is_wanted(name: pathlib.PurePath) -> bool:
    folders = set(name.parts[:-1])
    generated = name.name.startswith("_sysconfigdata") or any(part.startswith("config-") for part in folders)
    return not (folders & _LEFT_OUT or generated or name.as_posix() in _LEFT_OUT_FILES)


def _read(file: pathlib.Path) -> str | None:
    try:
        return file.read_bytes().decode("utf-8")
    except (UnicodeDecodeError, OSError):  # a Latin-1 source, or a broken link of the distribution
        return None
