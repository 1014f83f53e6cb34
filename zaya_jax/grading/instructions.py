"""Whether a response keeps to instructions about its form, of the kind that IFEval asks for (arXiv 2311.07911).

Each check is a pure function of the response and plain arguments. IFEval's names for them are in docs/grading.md.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zaya_jax.errors import mistake

RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "at least": operator.ge,
    "at most": operator.le,
    "exactly": operator.eq,
    "less than": operator.lt,
    "more than": operator.gt,
}
_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
# Behind a full stop, space and a beginning that is none of a small letter; "3.5" and "e.g. this" end nothing.
_SENTENCE_END = re.compile(r"(?<!\b[A-Z])(?<![.!?…])[.!?…]++[\"'”’)\]]{0,3}(?=\s+[^a-z\s]|\s*\Z)|[。！？]")
_BULLET = re.compile(r"^[ \t]{0,20}[*+-][ \t]+\S", re.MULTILINE)
_TITLE = re.compile(r"<<([^<>\n]+)>>")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
_HIGHLIGHT = re.compile(r"(?<!\*)(\*\*?)(?!\*)([^*\n]+)\1(?!\*)")
_SEPARATOR = re.compile(r"^[ \t]*\*{6}[ \t]*$", re.MULTILINE)
_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*)\n[ \t]*```", re.DOTALL | re.IGNORECASE)
_RULE = re.compile(r"^[ \t]*\*{3}[ \t]*$", re.MULTILINE)


def check(name: str, arguments: Mapping[str, Any], response: str) -> bool:
    """Whether a response keeps to an instruction; an empty one keeps to none.

    Args:
        name: of `CHECKS`.
        arguments: by keyword, what the check takes besides the response.
        response: the text, without its reasoning.

    Raises:
        UserError: no such check, or arguments that it does not take.
    """
    if name not in CHECKS:
        raise mistake("no such instruction", expected=", ".join(sorted(CHECKS)), found=repr(name))
    if not response.strip():
        return False
    try:
        return CHECKS[name](response, **arguments)
    except (TypeError, KeyError) as error:
        raise mistake(f"arguments are not usable: {error}", where=name, found=repr(dict(arguments))) from None


def compare(count: int, relation: str, number: int) -> bool:
    """`count` against `number`, by a name of `RELATIONS`."""
    return RELATIONS[relation](count, number)


def words(response: str, relation: str, number: int) -> bool:
    """Number of words; a hyphen or an apostrophe joins two."""
    return compare(len(_WORD.findall(response)), relation, number)


def sentences(response: str, relation: str, number: int) -> bool:
    """Number of sentences; the last one needs no full stop."""
    text = response.strip()
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    rest = text[ends[-1] if ends else 0 :]
    return compare(len(ends) + bool(_WORD.search(rest)), relation, number)


def paragraphs(response: str, relation: str, number: int, separator: str = "blank") -> bool:
    """Number of paragraphs, between blank lines, or with separator "***" between lines of three asterisks.

    An empty paragraph in the middle fails every count: what was asked for is text between marks.
    """
    if separator == "***":
        parts = [part.strip() for part in _RULE.split(response)]
        parts = parts[not parts[0] : len(parts) - (not parts[-1]) or None]
        return all(parts) and compare(len(parts), relation, number)
    parts = [part for part in re.split(r"\n[ \t]*\n", response) if part.strip()]
    return compare(len(parts), relation, number)


def paragraph_starts(response: str, paragraph: int, word: str, number: int | None = None) -> bool:
    """The paragraph of that index, from 1, begins with a word; `number` is of all paragraphs, if that is asked for."""
    parts = [part for part in re.split(r"\n[ \t]*\n", response) if part.strip()]
    if (number is not None and len(parts) != number) or not 0 < paragraph <= len(parts):
        return False
    first = _WORD.search(parts[paragraph - 1])
    return first is not None and first[0].lower() == word.lower()


def bullets(response: str, relation: str, number: int) -> bool:
    """Number of Markdown list items: lines that begin with `*`, `-` or `+` and a space."""
    return compare(len(_BULLET.findall(response)), relation, number)


def keywords(response: str, words: Sequence[str]) -> bool:
    """All of the words or phrases occur, as whole words, in any case."""
    return all(occurrences(response, word) for word in words)


def keyword_frequency(response: str, word: str, relation: str, number: int) -> bool:
    """How often a word occurs."""
    return compare(occurrences(response, word), relation, number)


def forbidden_words(response: str, words: Sequence[str]) -> bool:
    """None of the words occurs."""
    return not any(occurrences(response, word) for word in words)


def occurrences(text: str, word: str) -> int:
    """How often a word or phrase occurs as a whole, in any case."""
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def letter_frequency(response: str, letter: str, relation: str, number: int) -> bool:
    """How often a character occurs, in any case."""
    return compare(response.lower().count(letter.lower()), relation, number)


def capital_words(response: str, relation: str, number: int) -> bool:
    """Number of words in capitals only."""
    return compare(sum(word.isupper() for word in _WORD.findall(response)), relation, number)


def lowercase(response: str) -> bool:
    """No capital letter, and at least one small one."""
    return response.islower()


def uppercase(response: str) -> bool:
    """No small letter, and at least one capital."""
    return response.isupper()


def no_commas(response: str) -> bool:
    """No comma, in any script."""
    return not any(comma in response for comma in ",，、،")


def json_format(response: str) -> bool:
    """All of it is one JSON object or array, fenced or not."""
    text = response.strip()
    if match := _FENCED.fullmatch(text):
        text = match[1]
    try:
        return isinstance(json.loads(text, parse_constant=_refuse), dict | list)
    except (ValueError, RecursionError):
        return False


def _refuse(constant: str):
    raise ValueError(f"{constant} is no JSON")


def starts_with(response: str, phrase: str) -> bool:
    """It begins with a phrase, in any case, whatever space is before it."""
    return response.lstrip().lower().startswith(phrase.strip().lower())


def ends_with(response: str, phrase: str) -> bool:
    """It ends with a phrase, in any case; a closing quotation mark behind it is of no account."""
    return response.strip().rstrip("\"”'’").lower().endswith(phrase.strip().rstrip("\"”'’").lower())


def title(response: str) -> bool:
    """A title stands in <<double angle brackets>>."""
    return any(text.strip() for text in _TITLE.findall(response))


def placeholders(response: str, relation: str, number: int) -> bool:
    """Number of [placeholders] in square brackets."""
    return compare(len(_PLACEHOLDER.findall(response)), relation, number)


def highlighted(response: str, relation: str, number: int) -> bool:
    """Number of *highlighted* or **highlighted** sections, each within a line."""
    # A lone asterisk with space behind it is a list's or a product's.
    found = [text.strip() and (marks == "**" or text == text.strip()) for marks, text in _HIGHLIGHT.findall(response)]
    return compare(sum(map(bool, found)), relation, number)


def sections(response: str, splitter: str, relation: str, number: int) -> bool:
    """Number of sections with a numbered head, like "Section 1"."""
    heads = re.findall(rf"^[ \t#*]*{re.escape(splitter)}[ \t]+\d+", response, re.MULTILINE | re.IGNORECASE)
    return compare(len(heads), relation, number)


def postscript(response: str, marker: str = "P.S.") -> bool:
    """A line begins with the marker and has words behind it; "P.S." and "PS" are the same."""
    letters = [re.escape(letter) for letter in marker if letter.isalnum()]
    return re.search(rf"^[ \t*_]*{r'[. ]?'.join(letters)}\b\.?[ \t:*_]*\w", response, re.M | re.I) is not None


def two_responses(response: str) -> bool:
    """Two different texts, with one line of six asterisks between them."""
    parts = [part.strip() for part in _SEPARATOR.split(response)]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def quotation(response: str) -> bool:
    """All of it stands between double quotation marks."""
    text = response.strip()
    return len(text) > 2 and text[0] in '"“„' and text[-1] in '"”“'


def repeats_prompt(response: str, prompt: str) -> bool:
    """It begins with the prompt, word for word, and goes on."""
    wanted, text = prompt.strip(), response.strip()
    return text.lower().startswith(wanted.lower()) and bool(text[len(wanted) :].strip())


def one_of(response: str, options: Sequence[str]) -> bool:
    """It contains one of the given answers, in their spelling."""
    return any(option in response for option in options)


CHECKS: dict[str, Callable[..., bool]] = {
    "words": words,
    "sentences": sentences,
    "paragraphs": paragraphs,
    "paragraph_starts": paragraph_starts,
    "bullets": bullets,
    "keywords": keywords,
    "keyword_frequency": keyword_frequency,
    "forbidden_words": forbidden_words,
    "letter_frequency": letter_frequency,
    "capital_words": capital_words,
    "lowercase": lowercase,
    "uppercase": uppercase,
    "no_commas": no_commas,
    "json_format": json_format,
    "starts_with": starts_with,
    "ends_with": ends_with,
    "title": title,
    "placeholders": placeholders,
    "highlighted": highlighted,
    "sections": sections,
    "postscript": postscript,
    "two_responses": two_responses,
    "quotation": quotation,
    "repeats_prompt": repeats_prompt,
    "one_of": one_of,
}
