"""Prompts that ask for one solution out of several attempts, of which only the last tokens are known.

The wordings are our own (the report does not publish its): files of three sections beside this one, or a user's own.
The problem comes first, so that all rounds begin with the same tokens. What stands between the attempts is cut into
tokens once; the attempts themselves are token ids and stay what they are.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Sequence

from zaya_jax.errors import mistake
from zaya_jax.text.tokenizer import Tokenizer

KINDS = ("math", "code", "choice", "general", "compact")  # compact: for nano models, which read bytes
_DIRECTORY = pathlib.Path(__file__).with_name("aggregation")
_SECTIONS = {"aggregate": "attempts", "refine": "attempts", "attempt": "tail"}  # and the field that each must have
_PROBLEM, _TAIL = "\ue0f0", "\ue0f1"  # of a private use area: where the text is cut


@dataclasses.dataclass(frozen=True)
class Wording:
    """What surrounds the attempts.

    Attributes:
        aggregate: for several of them, with `{attempts}`, and `{count}` if wanted.
        refine: for one, with `{attempts}`.
        attempt: around each, with `{tail}`, and `{number}` (from 1) if wanted.
    """

    aggregate: str
    refine: str
    attempt: str

    def around(self, count: int) -> str:
        """The whole text for so many attempts, a mark in the place of each."""
        each = [
            _filled(self.attempt, number=str(number), tail=_TAIL, count=str(count)) for number in range(1, count + 1)
        ]
        return _filled(self.refine if count == 1 else self.aggregate, attempts="\n\n".join(each), count=str(count))


@dataclasses.dataclass(frozen=True)
class Pieces:
    """A problem's prompts in tokens.

    Attributes:
        direct: the prompt that asks for a solution without attempts.
        between: what stands before the first attempt, between them, and behind the last: one more than attempts.
        prefix: how many tokens `direct` and `between[0]` begin with in common: up to the end of the problem.
    """

    direct: tuple[int, ...]
    between: tuple[tuple[int, ...], ...]
    prefix: int

    def around(self, tails: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """The prompt with these attempts: what `sampling.tails.assemble` puts together on the device."""
        first, *later = self.between
        return (*first, *(token for tail, part in zip(tails, later, strict=True) for token in (*tail, *part)))


def load_wording(kind: str) -> Wording:
    """The wording of a kind of problem, or the one in a file.

    Args:
        kind: one of `KINDS`, or the path of a file.

    Raises:
        UserError: there is no such file, or it lacks a section or a field.
    """
    path = _DIRECTORY / f"{kind}.txt" if kind in KINDS else pathlib.Path(kind)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        expected = f"one of {', '.join(KINDS)}, or a file"
        raise mistake("no such aggregation prompt", where=kind, expected=expected, found=error) from None
    parts = re.split(r"^\[(\w+)\]\n", text, flags=re.MULTILINE)
    sections = {name: body.strip("\n") for name, body in zip(parts[1::2], parts[2::2])}
    for name, field in _SECTIONS.items():
        if name not in sections:
            raise mistake("lacks a section", where=path, expected=f"[{name}]", found=sorted(sections) or "none")
        if "{" + field + "}" not in sections[name]:
            raise mistake("lacks a field", where=f"{path}, [{name}]", expected="{" + field + "}", fix="add it")
    return Wording(*(sections[name] for name in _SECTIONS))


def cut_prompts(tokenizer: Tokenizer, problem: str, wording: Wording, count: int, *, open_thinking=True) -> Pieces:
    """The prompts of a problem as the chat template renders them, in tokens.

    Args:
        problem: all that is asked for, the form of the answer included.
        count: attempts of an aggregation prompt.
        open_thinking: end the prompts with `<think>` where the template does not and the tokenizer has it, so that
            whatever follows is reasoning.

    Raises:
        UserError: the checkpoint has no chat template, or the template loses part of the message.
    """
    direct = _rendered(tokenizer, problem + _PROBLEM, _PROBLEM, 2)
    whole = _rendered(tokenizer, f"{problem}{_PROBLEM}\n\n{wording.around(count)}", f"[{_PROBLEM}{_TAIL}]", count + 2)
    head, foot, *between = (tuple(tokenizer.encode(text, special=False)) for text in (*direct, *whole[1:]))
    if whole[0] != direct[0]:
        raise mistake("the chat template does not begin two messages of one problem alike", where=tokenizer.source)
    opened = _opening(tokenizer, direct[0] + direct[1]) if open_thinking else ()
    return Pieces(head + foot + opened, (head + between[0], *between[1:-1], between[-1] + opened), len(head))


def prompt_text(problem: str, wording: Wording, attempts: Sequence[str]) -> str:
    """The user's message with these attempts, as it is cut by `cut_prompts`, before any chat template."""
    first, *later = wording.around(len(attempts)).split(_TAIL)
    return f"{problem}\n\n{first}" + "".join(tail + part for tail, part in zip(attempts, later, strict=True))


def _rendered(tokenizer: Tokenizer, content: str, marks: str, parts: int) -> list[str]:
    """What the template makes of a user's message, cut at its marks."""
    found = re.split(marks, tokenizer.render_chat([{"role": "user", "content": content}]))
    if len(found) != parts:
        expected, found = f"{parts - 1} places to cut at", len(found) - 1
        fix = "the problem may hold the characters U+E0F0 or U+E0F1, or the template drops text"
        raise mistake("the prompt cannot be cut", where=tokenizer.source, expected=expected, found=found, fix=fix)
    return found


def _opening(tokenizer: Tokenizer, rendered: str) -> tuple[int, ...]:
    start, end = tokenizer.think_start_id, tokenizer.think_end_id
    if start is None or end is None:
        return ()
    marks = [token for token in tokenizer.encode(rendered, special=False) if token in (start, end)]
    return () if marks and marks[-1] == start else (start,)


def _filled(text: str, **values: str) -> str:
    """The text with known fields replaced; other braces stay, as in \\boxed{}."""
    names = "|".join(values)
    return re.sub("{(" + names + ")}", lambda match: values[match[1]], text)
