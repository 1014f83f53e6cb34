"""The final answer in a response's text, which has lost its reasoning already (`zaya_jax/text/thinking.py`).

Every function reads its text a fixed number of times, whatever is in it: responses of a megabyte are judged too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from zaya_jax.errors import mistake

Kind = Literal["integer", "latex", "choice", "exact", "code"]

_BOXES = re.compile(r"\\(?:boxed|fbox)[ \t]{0,8}\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace opens nothing
_ANSWER = re.compile(r"\banswer(?:\*\*|__)?[ \t]{0,8}(?::|=|(?:is|are)\b)[ \t]{0,8}:?", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:(?:,|\\,|\{,\}|\\!,|,\\!)[0-9]{3}){1,20}|[0-9]{1,100})")
_SEPARATORS = re.compile(r"[^0-9+-]")
_LETTER = re.compile(r"\(?([A-J])(?:[).:,;]|(?![\w'’-]))")
_PAREN_LETTER = re.compile(r"(?:\\(?:text|textbf|mathbf|mathrm)\{)?\(?([A-J])\)")
_OTHER_LETTER = re.compile(r"[)}.*\s]{0,4}(?:or\b|and\b|[/,&])[\s(*]{0,4}[A-J]\b")  # "A or (B)" is no choice
_BEFORE_LETTER = re.compile(
    r"(?:(?:the )?(?:option|choice|letter)\b[ \t:]{0,8})?(?:\\(?:text|mathrm|textbf|mathbf)\{|\\\()?", re.I
)
_PROSE = re.compile(r"[ \t]{1,8}(?!(?:because|since|as|due)\b)[A-Za-z]")
_DECORATION = " \t\r\n*_`\"“”'’"
_FENCE = re.compile(r"^[ \t]{0,3}(`{3,40}|~{3,40})[ \t]{0,40}([^\s`]{0,40})[^\n`]{0,200}$", re.MULTILINE)
_WRAPS = tuple((f"\\{name}{{", "}") for name in ("text", "mathrm", "textbf", "mathbf"))
_LONGEST = 2000  # characters of an answer that is a number or a letter
_ANSWER_TAGS = ("<answer>", "</answer>")


def extract(text: str, kind: Kind) -> str | None:
    """Returns the final answer, or None if there is none that can be read.

    Args:
        text: the response without its reasoning.
        kind: "integer" (0 to 999, as AIME asks for, in its plain spelling), "latex", "choice" (a letter A to J),
            "exact" or "code". What each accepts is in docs/grading.md.

    Raises:
        UserError: no such kind.
    """
    if kind not in KINDS:
        raise mistake("no such kind of answer", expected=", ".join(KINDS), found=repr(kind))
    return KINDS[kind](text)


def boxed(text: str) -> str | None:
    r"""Returns what is in the last `\boxed{...}` or `\fbox{...}` whose braces balance; in the outer one, if nested."""
    last = None
    opened: list[tuple[int, bool]] = []
    boxes = {match.end() - 1 for match in _BOXES.finditer(text)}
    if not boxes:
        return None
    for match in _BRACES.finditer(text):
        if match[0] == "{":
            opened.append((match.end(), match.start() in boxes))
        elif match[0] == "}" and opened:
            start, is_box = opened.pop()
            if is_box:
                last = (start, match.start())
    return None if last is None else text[last[0] : last[1]].strip()


def after_answer(text: str) -> str | None:
    """Returns the rest of the line behind the last "answer is" or "Answer:", or the next line if nothing is there."""
    *_, last = [None, *_ANSWER.finditer(text)]
    if last is None:
        return None
    rest = text[last.end() :].lstrip(_DECORATION + ":")
    return rest.partition("\n")[0].strip() or None


def integer(text: str) -> str | None:
    """Returns an integer of 0 to 999 without leading zeros. Where a box is, only the last one counts."""
    answer = boxed(text)
    if answer is None:
        answer = after_answer(text)
    value = None if answer is None else read_integer(answer)
    return str(value) if value is not None and 0 <= value <= 999 else None


def read_integer(answer: str) -> int | None:
    r"""Reads "070", "$70$", "1{,}234" or "70.", whole: "12 or 13" and "about 12" are no integer."""
    plain = _undecorated(answer).removesuffix(".").rstrip()
    plain = _undecorated(plain)
    return int(_SEPARATORS.sub("", plain)) if _INTEGER.fullmatch(plain) else None


def _undecorated(answer: str) -> str:
    r"""Without what surrounds an answer: spaces, Markdown's emphasis, quotes, `$...$`, `\(...\)`, `\text{...}`."""
    if len(answer) > _LONGEST:
        return answer
    while True:
        before, answer = answer, answer.strip(_DECORATION)
        for left, right in (("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), *_WRAPS):
            if len(answer) >= len(left) + len(right) and answer.startswith(left) and answer.endswith(right):
                answer = answer[len(left) : -len(right)]
        if answer == before:
            return answer


def latex(text: str) -> str | None:
    """Returns an expression: in the last box, else behind the last "Answer:" to the end of its line."""
    answer = boxed(text)
    if answer is None and (answer := after_answer(text)) is not None:
        answer = answer.strip(_DECORATION).removesuffix(".")
    return answer or None


def choice(text: str) -> str | None:
    """Returns a letter A to J: in the last box, else behind "answer is", else a last line that is nothing but one."""
    if (answer := boxed(text)) is not None:
        match = _PAREN_LETTER.match(answer)
        hedged = match and _OTHER_LETTER.match(answer, match.end())
        return _only_letter(answer.removesuffix(".")) or (match[1] if match and not hedged else None)
    if (answer := after_answer(text)) is not None:
        return _leading_letter(answer)
    return _only_letter(_undecorated(_last_line(text)).removesuffix("."))


def _only_letter(text: str) -> str | None:
    letter = _undecorated(text).removeprefix("(").removesuffix(")")
    return letter if len(letter) == 1 and "A" <= letter <= "J" else None


def _leading_letter(answer: str) -> str | None:
    """The letter that an answer begins with: "C", "(C) because ...", "**C**. Rome", but not "A good ..."."""
    answer = _BEFORE_LETTER.sub("", answer[:_LONGEST].lstrip(_DECORATION + "$"), count=1).lstrip(_DECORATION)
    match = _LETTER.match(answer)
    if not match or _OTHER_LETTER.match(answer, match.end(1)):
        return None
    # Without a mark behind it, a word that follows makes "A" an article and "I" a pronoun.
    bare = match[0][-1] == match[1]
    return None if bare and match[1] in "AI" and _PROSE.match(answer, match.end()) else match[1]


def exact(text: str) -> str | None:
    """Returns what is in the last `<answer>...</answer>`, else in the last box, else the last line with text."""
    start, end = _ANSWER_TAGS
    stop = text.rfind(end)
    begin = text.rfind(start, 0, stop) if stop >= 0 else -1
    if begin >= 0:
        return text[begin + len(start) : stop].strip()
    answer = boxed(text)
    return answer if answer is not None else _last_line(text) or None


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2].strip()


def code(text: str) -> str | None:
    """Returns the last fenced block that is marked as Python, else the last fenced block, without its fences."""
    blocks = _fenced(text)
    python = [block for language, block in blocks if language.lower() in ("python", "python3", "py")]
    if python:
        return python[-1]
    return blocks[-1][1] if blocks else None


def _fenced(text: str) -> list[tuple[str, str]]:
    """Blocks with their languages; one that the end of the text cuts off is none."""
    blocks, opened = [], None
    for match in _FENCE.finditer(text):
        if opened is None:
            opened = match
        elif match[1].startswith(opened[1]) and not match[2]:
            blocks.append((opened[2], text[opened.end() + 1 : match.start()]))
            opened = None
    return blocks


KINDS: dict[str, Callable[[str], str | None]] = {
    "integer": integer,
    "latex": latex,
    "choice": choice,
    "exact": exact,
    "code": code,
}
