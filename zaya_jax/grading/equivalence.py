"""Whether an answer means what the gold answer means."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

from zaya_jax.errors import mistake
from zaya_jax.grading import exact_values
from zaya_jax.grading.extract import Kind, read_integer
from zaya_jax.grading.math_verifier import Judgement, MathVerifier

COMPARABLE = ("integer", "latex", "choice", "exact")

_SPACING = re.compile(
    r"\\(?:left|right|displaystyle|limits|bigl?|bigr?|Bigl?|Bigr?)(?![a-zA-Z])|\\[,;:! ]|~|\\q?quad(?![a-zA-Z])"
)
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_DEGREES = re.compile(r"\^\s{0,4}(?:\{\s{0,4}\\circ\s{0,4}\}|\\circ(?![a-zA-Z]))|°|\\degree(?![a-zA-Z])|\\%|%|\\\$")
_TEXT = re.compile(r"\\(?:text|textrm|textbf|textit|mathrm|mathbf|mbox|operatorname)\s{0,4}\{([^{}]{0,200})\}")
_UNIT = re.compile(r"(?<=[\d)}\s])\s{0,4}\\?(?:text|mathrm|mbox)\s{0,4}\{\s{0,8}([^{}\d]{1,60})\}(?:\^\{?([23])\}?)?$")
_NAME = re.compile(r"^([a-zA-Z])\s{0,4}=(?!=)")
_WORDS = re.compile(r"[A-Za-z][A-Za-z ,'-]*")
_MATH = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_LONGEST = 20_000


def equivalent(gold: str, answer: str | None, kind: Kind, verifier: MathVerifier | None = None) -> bool:
    """Whether an answer is right.

    Args:
        gold: the right answer.
        answer: as `extract` gives it; None is never right.
        kind: "integer", "latex", "choice" or "exact". Programs are judged by tests: `zaya_jax/grading/code.py`.
        verifier: asked about LaTeX that this module cannot decide; without one, that is wrong.

    Raises:
        UserError: answers of this kind cannot be compared.
    """
    decided = decide(gold, answer, kind)
    if decided is None and verifier is not None:
        return verifier.equivalent_many([(gold, answer)])[0] is Judgement.EQUAL
    return bool(decided)


def decide(gold: str, answer: str | None, kind: Kind) -> bool | None:
    """As `equivalent`, by exact rules alone; None where they cannot tell, which only "latex" knows."""
    if kind not in COMPARABLE:
        raise mistake("answers of this kind cannot be compared", expected=", ".join(COMPARABLE), found=repr(kind))
    if answer is None:
        return False
    if kind == "integer":
        number = read_integer(answer)
        return number is not None and number == read_integer(gold)
    if kind == "latex":
        return _same_latex(gold, answer)
    return " ".join(gold.split()) == " ".join(answer.split())


def cluster(answers: Sequence[str | None], kind: Kind, verifier: MathVerifier | None = None) -> list[int]:
    """Numbers the classes of equivalent answers in the order in which they appear, for majority voting.

    An answer joins the first class whose first member it equals. An answer None has no vote: it is -1.
    """
    classes: list[str] = []
    numbers, known = [], {}
    for answer in answers:
        if answer is not None and answer not in known:
            known[answer] = _class_of(answer, classes, kind, verifier)
        numbers.append(-1 if answer is None else known[answer])
    return numbers


def _class_of(answer: str, classes: list[str], kind: Kind, verifier: MathVerifier | None) -> int:
    decisions = [decide(first, answer, kind) for first in classes]
    if True in decisions:
        return decisions.index(True)
    open_ones = [i for i, decision in enumerate(decisions) if decision is None]
    if verifier is not None and open_ones:
        judgements = verifier.equivalent_many([(classes[i], answer) for i in open_ones])
        for i, judgement in zip(open_ones, judgements):
            if judgement is Judgement.EQUAL:
                return i
    classes.append(answer)
    return len(classes) - 1


def _same_latex(gold: str, answer: str) -> bool | None:
    if not answer.strip() or max(len(gold), len(answer)) > _LONGEST:
        return False
    (name_a, unit_a, a), (name_b, unit_b, b) = _taken_apart(gold), _taken_apart(answer)
    # A unit or a name that only one of them gives is no difference; two different ones are.
    if (name_a and name_b and name_a != name_b) or (unit_a and unit_b and unit_a != unit_b):
        return False
    if a == b:
        return True
    value_a, value_b = exact_values.value(a), exact_values.value(b)
    if value_a is not None and value_b is not None:
        return value_a == value_b
    words_a, words_b = _TEXT.sub(r"\1", a), _TEXT.sub(r"\1", b)
    if _WORDS.fullmatch(words_a) and _WORDS.fullmatch(words_b) and min(len(words_a), len(words_b)) > 1:
        return words_a.replace(" ", "").lower() == words_b.replace(" ", "").lower()
    return _TEXT.sub(r"\1", a).replace(" ", "") == words_b.replace(" ", "") or None


def _taken_apart(text: str) -> tuple[str, str, str]:
    r"""(name, unit, rest) of "x = 5\text{ cm}", the rest in the spelling that `normalized` gives it."""
    text = normalized(text)
    name, unit = "", ""
    if match := _NAME.match(text):
        name, text = match[1], text[match.end() :].strip()
    if match := _UNIT.search(text):
        unit, text = match[1].strip().lower() + (match[2] or ""), text[: match.start()].strip()
    return name, unit, text


def normalized(text: str) -> str:
    r"""One spelling for LaTeX that looks alike: no `$`, `\left`, `\,`, degrees, percent, dollars; one `\frac`."""
    text = text.strip().removesuffix(".").strip()
    with contextlib.suppress(StopIteration):
        while True:
            left, right = next(
                (left, right)
                for left, right in _MATH
                if text.startswith(left) and text.endswith(right) and len(text) >= len(left + right)
            )
            text = text[len(left) : len(text) - len(right)].strip().removesuffix(".").strip()
    text = _SPACING.sub(" ", text.replace("−", "-").replace("{,}", ","))
    text = _DEGREES.sub("", _FRACTION.sub(r"\\frac", text))
    if match := _TEXT.fullmatch(text.strip()):
        text = match[1]
    return " ".join(text.split())
