"""Instructions about the form of a response: one generator for each check of `grading.instructions`.

A generator draws arguments and says them in one of several wordings. Which instructions contradict each other whatever
their arguments is a table, `CONFLICTS`; whether a set with its arguments can be kept is shown by keeping it
(`response.respond`).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any

Arguments = dict[str, Any]
Drawn = tuple[str, Arguments]

_WORDS = (
    "sun rain tree river stone bread lamp door road boat bird moon hill leaf salt wind milk gold nest coin "
    "song rope book fire snow fish wool corn bell lake"
)
WORDS = tuple(_WORDS.split())
LETTERS = "etaoinsrhldcumfpgwybvk"
STARTS = ("Dear", "Well", "Listen", "In short", "Good day", "To begin")
ENDS = ("Bye", "The end", "That is all", "Over", "So be it", "Good night")
OPTIONS = (("yes", "no"), ("true", "false"), ("left", "right"), ("more", "less"))
HEADS = ("Section", "Part", "Step")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """Something that a response has to keep to.

    Attributes:
        text: what the model reads.
        name, arguments: of the check, as `grading.instructions.check` takes them.
    """

    text: str
    name: str
    arguments: Arguments

    def to_json(self) -> dict[str, Any]:
        """The record that problems hide."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A family of instructions.

    Attributes:
        draw: (random numbers, size from 0 up, whether relations are strict) -> the text and the check's arguments. A
            larger size gives larger numbers.
        weight: how often it is drawn among simple instructions; 0: never.
        rare: the same among hard ones.
        repeats: whether a prompt may have several, about different words.
    """

    draw: Callable[[random.Random, int, bool], Drawn]
    weight: int
    rare: int
    repeats: bool = False


def draw(rng: random.Random, name: str, size: int, strict: bool = False) -> Instruction:
    """An instruction of a kind.

    Args:
        rng: where all chance comes from.
        name: of `KINDS`.
        size: from 0 up; numbers grow with it.
        strict: "exactly", "less than" and "more than" besides "at least" and "at most".
    """
    text, arguments = KINDS[name].draw(rng, size, strict)
    return Instruction(text, name, arguments)


def conflict(name: str, other: str) -> bool:
    """Whether two instructions of these kinds contradict each other or say the same, whatever their arguments."""
    if name == other:
        return not KINDS[name].repeats
    return other in CONFLICTS.get(name, ()) or name in CONFLICTS.get(other, ())


def subjects(arguments: Arguments) -> set[str]:
    """The words and letters that an instruction is about: no other of its prompt may be about them."""
    single = {arguments[key] for key in ("word", "letter") if key in arguments}
    return {word.lower() for word in single | set(arguments.get("words", ()))}


def _counted(
    forms: Sequence[str],
    least: int,
    growth: float,
    *,
    above: bool = False,
    more: Callable[[random.Random], Arguments] = lambda _: {},
):
    """Generator of a count.

    Args:
        forms: wordings; {rel} is the relation, {n} the number, {s} makes a plural.
        least: smallest number.
        growth: of the largest number, with the size.
        above: only relations that ask for some: nothing is too much of what nobody writes unasked.
        more: draws further arguments, fields of the wordings too.
    """
    everyday, strictly = ("at least", "at most"), ("exactly", "exactly", "more than", "less than")
    if above:
        everyday, strictly = ("at least", "exactly"), ("exactly", "exactly", "more than")

    def drawn(rng: random.Random, size: int, strict: bool) -> Drawn:
        relation = rng.choice(strictly if strict else everyday)
        number = least + rng.randint(0, 2 + int(growth * size))
        number += relation in ("less than", "at most")  # else nothing might be left
        extra = more(rng)
        shown = relation.replace("less", "fewer")
        text = rng.choice(forms).format(rel=shown, n=number, s="s" * (number != 1), **extra)
        return _sentence(text), {"relation": relation, "number": number, **extra}

    return drawn


def _plain(*forms: str):
    """Generator of an instruction without arguments."""
    return lambda rng, size, strict: (rng.choice(forms), {})


def _phrase(forms: Sequence[str], phrases: Sequence[str]):
    def drawn(rng: random.Random, size: int, strict: bool) -> Drawn:
        phrase = rng.choice(phrases)
        return rng.choice(forms).format(phrase=phrase), {"phrase": phrase}

    return drawn


def _listed(forms: Sequence[str]):
    """Generator of an instruction about one word, or more as sizes grow."""

    def drawn(rng: random.Random, size: int, strict: bool) -> Drawn:
        words = rng.sample(WORDS, rng.randint(1, min(1 + size // 4 + strict, 4)))
        shown = " and ".join(f'"{word}"' for word in words)
        return rng.choice(forms).format(words=shown), {"words": words}

    return drawn


def _paragraphs(rng: random.Random, size: int, strict: bool) -> Drawn:
    number = 2 + rng.randint(0, 1 + size // 4)
    arguments = {"relation": "exactly", "number": number}
    if strict and rng.random() < 0.5:
        forms = ("Write {n} paragraphs with *** between them.", "Make {n} paragraphs, a line *** between two.")
        return rng.choice(forms).format(n=number), arguments | {"separator": "***"}
    return rng.choice(("Write {n} paragraphs.", "Exactly {n} paragraphs.")).format(n=number), arguments


def _paragraph_starts(rng: random.Random, size: int, strict: bool) -> Drawn:
    number = 2 + rng.randint(0, 1 + size // 4)
    paragraph, word = rng.randint(1, number), rng.choice(WORDS)
    forms = ('Of {n} paragraphs, start number {k} with "{word}".', '{n} paragraphs; "{word}" begins number {k}.')
    text = rng.choice(forms).format(n=number, k=paragraph, word=word)
    return text, {"paragraph": paragraph, "word": word, "number": number}


def _one_of(rng: random.Random, size: int, strict: bool) -> Drawn:
    options = rng.choice(OPTIONS)
    forms = ('Say "{}" or "{}".', 'Decide: "{}" or "{}".', 'Answer with "{}" or "{}".')
    return rng.choice(forms).format(*options), {"options": list(options)}


def _postscript(rng: random.Random, size: int, strict: bool) -> Drawn:
    marker = rng.choice(("P.S.", "P.P.S") if strict else ("P.S.",))
    return rng.choice(('Add a line "{} ...".', 'Close with a "{}" line.')).format(marker), {"marker": marker}


def _sections(rng: random.Random, size: int, strict: bool) -> Drawn:
    head, number = rng.choice(HEADS), 2 + rng.randint(0, 1 + size // 4)
    forms = ('Head {n} sections "{h} 1" and so on.', 'Use {n} sections: "{h} 1", "{h} 2" ...')
    text = rng.choice(forms).format(n=number, h=head)
    return text, {"splitter": head, "relation": "exactly", "number": number}


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


KINDS: dict[str, Kind] = {
    "words": Kind(_counted(("{rel} {n} word{s}.", "Use {rel} {n} word{s}.", "Write {rel} {n} word{s}."), 3, 2), 3, 3),
    "sentences": Kind(_counted(("{rel} {n} sentence{s}.", "Write {rel} {n} sentence{s}."), 1, 0.5), 2, 3),
    "bullets": Kind(_counted(("{rel} {n} bullet{s}.", "List {rel} {n} bullet{s}."), 2, 0.5, above=True), 2, 2),
    "keywords": Kind(_listed(("Use the word {words}.", "Include {words}.", "Mention {words}.")), 3, 1, True),
    "forbidden_words": Kind(_listed(("Never say {words}.", "Avoid {words}.", "Leave out {words}.")), 2, 1, True),
    "lowercase": Kind(_plain("All lowercase.", "No capital letters.", "Small letters only."), 2, 1),
    "uppercase": Kind(_plain("All capitals.", "Capital letters only.", "No small letters."), 2, 1),
    "no_commas": Kind(_plain("No commas.", "Use no comma.", "Do without commas."), 2, 1),
    "starts_with": Kind(_phrase(('Begin with "{phrase}".', 'Start with "{phrase}".'), STARTS), 2, 2),
    "ends_with": Kind(_phrase(('End with "{phrase}".', 'Finish with "{phrase}".'), ENDS), 2, 2),
    "quotation": Kind(_plain("Put it all in double quotes.", 'All within "quotes".'), 1, 2),
    "title": Kind(_plain("Add a <<title>>.", "Give it a title in << >>."), 1, 2),
    "one_of": Kind(_one_of, 1, 1),
    "postscript": Kind(_postscript, 1, 2),
    "paragraphs": Kind(_paragraphs, 1, 2),
    "json_format": Kind(_plain("Reply in JSON.", "Give JSON only."), 1, 2),
    "paragraph_starts": Kind(_paragraph_starts, 0, 2),
    "sections": Kind(_sections, 0, 2),
    "two_responses": Kind(_plain("Give two answers, a line ****** between.", "Two replies parted by ******."), 0, 2),
    "keyword_frequency": Kind(
        _counted(('Say "{word}" {rel} {n} time{s}.', '"{word}" {rel} {n} time{s}.'), 1, 0.5, above=True,
                 more=lambda rng: {"word": rng.choice(WORDS)}), 0, 3, True),
    "letter_frequency": Kind(
        _counted(('Use the letter "{letter}" {rel} {n} time{s}.', 'Letter "{letter}" {rel} {n} time{s}.'), 2, 1,
                 more=lambda rng: {"letter": rng.choice(LETTERS)}), 0, 3, True),
    "capital_words": Kind(
        _counted(("{rel} {n} word{s} in CAPITALS.", "Put {rel} {n} word{s} in CAPITALS."), 1, 0.5, above=True), 0, 3),
    "placeholders": Kind(
        _counted(("Leave {rel} {n} [placeholder{s}].", "{rel} {n} [gap{s}] in brackets."), 1, 0.5, above=True), 0, 2),
    "highlighted": Kind(
        _counted(("Mark {rel} {n} *part{s}* so.", "{rel} {n} *marked* part{s}."), 1, 0.5, above=True), 0, 2),
}  # fmt: skip

# A sentence ends where something other than a small letter follows; JSON holds one line.
CONFLICTS: dict[str, tuple[str, ...]] = {
    "lowercase": ("uppercase", "capital_words", "sentences"),
    "uppercase": ("capital_words", "one_of"),
    "json_format": (
        "starts_with", "ends_with", "bullets", "sections", "paragraphs", "paragraph_starts", "title", "postscript",
        "two_responses", "quotation"),
    "quotation": ("starts_with",),
    "paragraphs": ("paragraph_starts", "two_responses"),
    "paragraph_starts": ("starts_with", "two_responses"),
}  # fmt: skip
