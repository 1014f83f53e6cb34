"""Texts of a model as a page may show them: every character visible, long ones without their middle."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from zaya_jax.report.html import Html, join, tag, text

MOST_BYTES = 20_000_000  # of all texts of a page together
MOST_LETTERS = 30_000  # of one text, however few there are
LEAST_LETTERS = 400
# Control characters but tab and line feed, halves of characters, and what turns the direction of the text around it.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]")


def readable(value: object) -> str:
    """A text in which nothing hides: control characters as pictures (`␀`), the rest of the unseen as `⟨U+202E⟩`."""
    return _UNSEEN.sub(_picture, str(value).replace("\r\n", "\n"))


def isolated(value: object) -> Html:
    """A short text, kept from changing the direction of its neighbours."""
    return tag("bdi", readable(value))


def shortened(value: object, letters: int) -> str:
    """A text on one line, with an ellipsis for what is beyond so many letters."""
    line = " ".join(readable(str(value)[: letters + 1]).split())
    return f"{line[: letters - 1]}…" if len(str(value)) > letters else line


def find_tail(whole: str, tail: str) -> tuple[int, int] | None:
    """From where to where a tail stands at the end of a text; None if it does not.

    White space around it, and the half character that a cut between two tokens can leave, are no difference.
    """
    tail, end = tail.strip().lstrip("\ufffd").lstrip(), len(whole.rstrip())
    return (end - len(tail), end) if tail and whole.endswith(tail, 0, end) else None


def trace(value: str, limit: int, marked: tuple[int, int] | None = None) -> Html:
    """A text in a typewriter's letters; beyond the limit without its middle, and then with its true length.

    Args:
        value: the text.
        limit: in characters; a third of what is kept is the beginning.
        marked: from where to where it is highlighted.
    """
    if len(value) <= limit:
        return tag("pre", *_marked(value, 0, len(value), marked), class_="trace")
    head, rest = limit // 3, len(value) - (limit - limit // 3)
    left_out = tag("i", f"… {rest - head:,} of {len(value):,} characters are left out here …", class_="cut")
    return tag("pre", *_marked(value, 0, head, marked), left_out, *_marked(value, rest, len(value), marked),
               class_="trace")  # fmt: skip


def find_limit(texts: Iterable[str]) -> int:
    """How many characters of each text a page can hold, if together they are to stay below `MOST_BYTES`."""
    costs = [(len(value), len(text(readable(value)).encode()) / len(value)) for value in texts if value]
    limit = MOST_LETTERS
    while limit > LEAST_LETTERS and sum(min(length, limit) * bytes_ for length, bytes_ in costs) > MOST_BYTES:
        limit = int(0.9 * limit)
    return round(limit, -2)


def _marked(value: str, begin: int, end: int, marked: tuple[int, int] | None) -> Iterator[Html]:
    low, high = (min(max(place, begin), end) for place in marked or (end, end))
    for piece, is_marked in ((value[begin:low], False), (value[low:high], True), (value[high:end], False)):
        if piece:
            yield tag("mark", readable(piece)) if is_marked else join([readable(piece)])


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
