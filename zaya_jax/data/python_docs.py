"""Real text that every Python ships: the language reference behind `help("...")`."""

from __future__ import annotations

from collections.abc import Mapping

HOLD_OUT_EVERY = 10


def python_topics() -> dict[str, str]:
    """The topics of `pydoc_data` by name, sorted, without tables, each paragraph only where it comes first.

    The same pages stand in several topics ("attribute-access" is part of "specialnames"); held-out text would
    otherwise have been trained on. Tables are mostly runs of blanks and dashes, in which a small model gets lost.
    About 340 kB in Python 3.11.
    """
    from pydoc_data.topics import topics  # a large literal: read only by those who want it

    return without_repetitions({name: without_tables(topics[name]) for name in sorted(topics)})


def without_tables(text: str) -> str:
    """The text less the paragraphs that are tables: with rules like `+-----+-----+`."""
    return "\n\n".join(part for part in text.split("\n\n") if "+--" not in part and "+==" not in part)


def without_repetitions(documents: Mapping[str, str]) -> dict[str, str]:
    """Documents less the paragraphs that an earlier one has, whatever their indentation; empty ones are left out."""
    seen: set[str] = set()
    kept = {}
    for name, text in documents.items():
        paragraphs = []
        for paragraph in text.split("\n\n"):
            words = " ".join(paragraph.split())
            if words and words not in seen:
                seen.add(words)
                paragraphs.append(paragraph.strip("\n"))
        if paragraphs:
            kept[name] = "\n\n".join(paragraphs) + "\n"
    return kept


def hold_out(documents: Mapping[str, str], every: int = HOLD_OUT_EVERY) -> tuple[dict[str, str], dict[str, str]]:
    """Documents to train on, and whole documents held out: the middle one of every `every`, in their order."""
    held_out = {name: text for i, (name, text) in enumerate(documents.items()) if i % every == every // 2}
    return {name: text for name, text in documents.items() if name not in held_out}, held_out
