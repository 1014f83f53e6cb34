"""IFEval's instructions (arXiv 2311.07911) as checks of `zaya_jax.grading.instructions`.

Our checks read the same instructions by rules of our own, so that single verdicts may differ from the publisher's code.
There is none for `language:response_language`, which takes a language detector, and none for IFBench's instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Arguments = Mapping[str, Any]

_YES_NO_MAYBE = ["My answer is yes.", "My answer is no.", "My answer is maybe."]


def check_of(name: str, given: Arguments) -> dict[str, Any] | None:
    """The instruction as ours: {"name", "arguments"}; None if there is no check for it.

    Args:
        name: IFEval's, e.g. "length_constraints:number_words".
        given: its arguments, by IFEval's names; null ones are not meant.

    Raises:
        KeyError: an argument is missing.
    """
    if name not in _CHECKS:
        return None
    ours, arguments = _CHECKS[name]
    return {"name": ours, "arguments": arguments({key: value for key, value in given.items() if value is not None})}


def _counted(number: str, relation: str) -> Callable[[Arguments], dict[str, Any]]:
    """A number under a key of theirs, and how to compare with it: under a key too, or always the same."""
    fixed = relation in ("at least", "exactly")
    return lambda given: {"relation": relation if fixed else given[relation], "number": int(given[number])}


def _renamed(**names: str) -> Callable[[Arguments], dict[str, Any]]:
    """Our names of arguments and theirs."""
    return lambda given: {ours: given[theirs] for ours, theirs in names.items()}


def _joined(*parts: Callable[[Arguments], dict[str, Any]]) -> Callable[[Arguments], dict[str, Any]]:
    return lambda given: {key: value for part in parts for key, value in part(given).items()}


_CHECKS: dict[str, tuple[str, Callable[[Arguments], dict[str, Any]]]] = {
    "keywords:existence": ("keywords", _renamed(words="keywords")),
    "keywords:frequency": ("keyword_frequency", _joined(_renamed(word="keyword"), _counted("frequency", "relation"))),
    "keywords:forbidden_words": ("forbidden_words", _renamed(words="forbidden_words")),
    "keywords:letter_frequency": (
        "letter_frequency", _joined(_renamed(letter="letter"), _counted("let_frequency", "let_relation"))),
    "length_constraints:number_sentences": ("sentences", _counted("num_sentences", "relation")),
    "length_constraints:number_words": ("words", _counted("num_words", "relation")),
    "length_constraints:number_paragraphs": (
        "paragraphs", _joined(_counted("num_paragraphs", "exactly"), lambda _: {"separator": "***"})),
    "length_constraints:nth_paragraph_first_word": (
        "paragraph_starts", _renamed(paragraph="nth_paragraph", word="first_word", number="num_paragraphs")),
    "detectable_content:number_placeholders": ("placeholders", _counted("num_placeholders", "at least")),
    "detectable_content:postscript": ("postscript", _renamed(marker="postscript_marker")),
    "detectable_format:number_bullet_lists": ("bullets", _counted("num_bullets", "exactly")),
    "detectable_format:constrained_response": ("one_of", lambda _: {"options": _YES_NO_MAYBE}),
    "detectable_format:number_highlighted_sections": ("highlighted", _counted("num_highlights", "at least")),
    "detectable_format:multiple_sections": (
        "sections", _joined(_renamed(splitter="section_spliter"), _counted("num_sections", "at least"))),
    "detectable_format:json_format": ("json_format", _renamed()),
    "detectable_format:title": ("title", _renamed()),
    "combination:two_responses": ("two_responses", _renamed()),
    "combination:repeat_prompt": ("repeats_prompt", _renamed(prompt="prompt_to_repeat")),
    "startend:end_checker": ("ends_with", _renamed(phrase="end_phrase")),
    "startend:quotation": ("quotation", _renamed()),
    "change_case:capital_word_frequency": ("capital_words", _counted("capital_frequency", "capital_relation")),
    "change_case:english_capital": ("uppercase", _renamed()),
    "change_case:english_lowercase": ("lowercase", _renamed()),
    "punctuation:no_comma": ("no_commas", _renamed()),
}  # fmt: skip
