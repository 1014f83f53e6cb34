"""A response that keeps to a set of instructions, put together from small words: the proof that the set can be kept.

The words are laid out once as the instructions want them (marks, lines, paragraphs), and then added to until every
count is large enough. What is found is checked by the checks themselves.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from zaya_jax.environments.instructions.kinds import Arguments, Instruction
from zaya_jax.grading.instructions import check, occurrences

_FILLERS = (
    "it is good so we go on and then all of us see how to do our own work as they say in this old town by the sea "
    "every day up here may give much joy to you but few like long lines if only big blue kites fly far above my roof "
    "web pack milk club zoo fox quiz"
)
_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
_TRIES = 12  # rounds of adding words


class Limits(NamedTuple):
    """Counts from `low` to `high`, both among them."""

    low: int
    high: float


def limits(arguments: Arguments) -> Limits:
    """What a relation and a number allow."""
    number = arguments["number"]
    return {
        "at least": Limits(number, math.inf),
        "at most": Limits(0, number),
        "exactly": Limits(number, number),
        "less than": Limits(0, number - 1),
        "more than": Limits(number + 1, math.inf),
    }[arguments["relation"]]


def respond(topic: str, instructions: Sequence[Instruction]) -> str | None:
    """A response to a request about `topic` that keeps to all instructions; the same on every machine.

    Returns:
        The text, or None: none was found. Every text that is returned has been checked.
    """
    wishes = _Wishes(topic, instructions)
    if not wishes.calm:
        return None
    extra: list[str] = []
    for _ in range(_TRIES):
        text = wishes.render(extra)
        more = list(wishes.missing(text))
        if not more and all(check(item.name, item.arguments, text) for item in instructions):
            return text
        extra += more or [wishes.calm[len(extra) % len(wishes.calm)]]
    return None


class _Wishes:
    """What instructions ask for, by kind, and how to lay words out so that it is there."""

    def __init__(self, topic: str, instructions: Sequence[Instruction]):
        self.topic = topic
        self._first = {item.name: item.arguments for item in reversed(instructions)}
        self._all = [(item.name, item.arguments) for item in instructions]
        self._letters = {a["letter"].lower(): limits(a) for name, a in self._all if name == "letter_frequency"}
        self._counted = {a["word"]: limits(a) for name, a in self._all if name == "keyword_frequency"}
        fillers = _FILLERS.split()
        random.Random(f"{topic} {self._all}").shuffle(fillers)
        self._fillers = [word for word in fillers if word not in self._avoided()]
        self.calm = [word for word in self._fillers if not self._touches(word)]

    def render(self, extra: Sequence[str]) -> str:
        """The text with further words in its main line."""
        text = self._json(extra) if "json_format" in self._first else self._paragraphs(extra)
        if "quotation" in self._first:
            text = f'"{text}"'
        if "lowercase" in self._first:
            return text.lower()
        return text.upper() if "uppercase" in self._first else text

    def missing(self, text: str) -> Iterator[str]:
        """Words that bring too small counts up: letters, keywords, capitals, then words of any kind."""
        added: list[str] = []
        for letter, (low, _) in self._letters.items():
            added += self._spelling(letter, low - text.lower().count(letter))
        for word, (low, _) in self._counted.items():
            added += [word] * (low - occurrences(text, word))
        capitals = self._low("capital_words") - sum(word.isupper() for word in _WORD.findall(text))
        added += [self._calm(i).upper() for i in range(capitals)]
        short = self._low("words") - len(_WORD.findall(text)) - len(added)
        yield from added
        yield from (self._calm(i) for i in range(short))

    def _json(self, extra: Sequence[str]) -> str:
        return json.dumps({self._calm(1): self._main(extra, trailing=False)}, ensure_ascii=False)

    def _paragraphs(self, extra: Sequence[str]) -> str:
        """The first paragraph, further ones, and what closes the last of them."""
        first, others, closing = self._lines(), self._others(), self._closing()
        trailing = bool(first or others or closing)
        main = self._main(extra, trailing)
        title = [f"<<{self._calm(0)}>>"] if "title" in self._first else []
        edge = "starts_with" in self._first or "paragraph_starts" in self._first
        lines = [main, *title, *first] if edge else [*title, main, *first]
        separator = "\n***\n" if self._first.get("paragraphs", {}).get("separator") else "\n\n"
        return "\n".join([separator.join(["\n".join(lines), *others]), *closing])

    def _lines(self) -> list[str]:
        """Lines below the main one: sections, list items."""
        sections = self._first.get("sections")
        heads = [f"{sections['splitter']} {i + 1}" for i in range(limits(sections).low)] if sections else []
        return heads + [f"- {self._calm(i)}" for i in range(self._low("bullets"))]

    def _others(self) -> list[str]:
        """The paragraphs behind the first."""
        starts = self._first.get("paragraph_starts")
        number = starts["number"] if starts else self._low("paragraphs")
        words = [self._calm(i) for i in range(1, number)]
        if starts and starts["paragraph"] > 1:
            words[starts["paragraph"] - 2] = starts["word"]
        return [word.capitalize() for word in words]

    def _closing(self) -> list[str]:
        lines = []
        if "two_responses" in self._first:
            lines += ["******", self._calm(3).capitalize()]
        if "postscript" in self._first:
            lines.append(f"{self._first['postscript']['marker']} {self._calm(2)}")
        return lines + ([self._first["ends_with"]["phrase"]] if "ends_with" in self._first else [])

    def _main(self, extra: Sequence[str], trailing: bool) -> str:
        """The main line: all words that may stand anywhere, in as many sentences as are wanted.

        Args:
            extra: words at the end.
            trailing: whether words follow it: they are the last sentence.
        """
        words = [*self._opening(), *self._wanted(), *extra]
        wanted = max(self._low("sentences"), 1)
        ended = wanted - trailing if "sentences" in self._first else 1 - trailing
        parts = _split(words, max(wanted - trailing, 1))
        stop = ". " if ended else " "
        return stop.join(_capitalized(part) for part in parts) + ("." if ended else "")

    def _opening(self) -> list[str]:
        if "starts_with" in self._first:
            return [*self._first["starts_with"]["phrase"].split(), self.topic]
        starts = self._first.get("paragraph_starts")
        return [starts["word"], self.topic] if starts and starts["paragraph"] == 1 else [self.topic]

    def _wanted(self) -> list[str]:
        """Words that have to occur, plain or within marks."""
        words = [self._first["one_of"]["options"][0]] if "one_of" in self._first else []
        words += [word for name, a in self._all if name == "keywords" for word in a["words"] if word != self.topic]
        words += [f"[{self._calm(i)}]" for i in range(self._low("placeholders"))]
        return words + [f"*{self._calm(i)}*" for i in range(self._low("highlighted"))]

    def _low(self, name: str) -> int:
        return limits(self._first[name]).low if name in self._first else 0

    def _calm(self, index: int) -> str:
        return self.calm[index % len(self.calm)]

    def _avoided(self) -> set[str]:
        return {word.lower() for name, a in self._all if name == "forbidden_words" for word in a["words"]}

    def _touches(self, word: str) -> bool:
        """Whether a word moves a count that has an upper limit."""
        capped = [letter for letter, limit in self._letters.items() if limit.high < math.inf]
        return word in self._counted or any(letter in word for letter in capped)

    def _spelling(self, letter: str, count: int) -> list[str]:
        """Words that hold a letter so many times, and no other letter with an upper limit."""
        capped = {other for other, limit in self._letters.items() if limit.high < math.inf and other != letter}
        usable = [w for w in self._fillers if w.count(letter) == 1 and w not in self._counted and not capped & set(w)]
        return [usable[i % len(usable)] for i in range(count)] if usable else []


def _split(words: Sequence[str], parts: int) -> list[list[str]]:
    """As evenly as can be, the longest part first; fewer parts where there are fewer words."""
    parts = min(parts, len(words))
    size, more = divmod(len(words), parts)
    edges = [0]
    for part in range(parts):
        edges.append(edges[-1] + size + (part < more))
    return [list(words[a:b]) for a, b in itertools.pairwise(edges)]


def _capitalized(words: Sequence[str]) -> str:
    text = " ".join(words)
    return text[0].upper() + text[1:]
