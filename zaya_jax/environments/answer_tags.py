"""Answers between `<answer>` and `</answer>`, for environments whose own prompts do not say where an answer stands."""

from __future__ import annotations

START, END = "<answer>", "</answer>"
REQUEST = f"Give the final answer between {START} and {END}."


def last_answer(response: str) -> str | None:
    """What stands in the last pair of tags, stripped; None where there is none, or where a tag is opened after it.

    Text around the pair is allowed, a tag inside of it is not: it holds one answer or none.
    """
    begin = response.rfind(START)
    if begin < 0:
        return None
    stop = response.find(END, begin)
    if stop < 0 or response.find(END, stop + len(END)) >= 0:
        return None
    return response[begin + len(START) : stop].strip() or None
