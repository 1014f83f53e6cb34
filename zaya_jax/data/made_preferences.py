"""Preferences made on the spot: requests with two replies each, of which a plain rule prefers one.

Nothing to download: for a first reward model, and for tests of one. The rule looks at three things, the first that
differs decides: whether the reply has the form that was asked for, whether it ends with thanks, and how few words it
has (`merit`). What a reward model should have learnt is therefore known for any reply.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any

from zaya_jax.errors import mistake
from zaya_jax.grading.instructions import bullets, ends_with, uppercase, words

PARTS = {"train": 4000, "held_out": 200}  # rows
FORMS = {"in one line": lambda text: "\n" not in text.strip(), "as a list": lambda text: bullets(text, "at least", 1),
         "in capitals": uppercase}  # fmt: skip
THANKS = "Thank you."
KINDS = ("old", "new", "big", "red", "wet", "dry", "far", "odd", "raw", "shy", "warm", "cold", "soft", "dark", "slow")
THINGS = ("sun", "sea", "owl", "fox", "cat", "hat", "cup", "key", "map", "bus", "tea", "oak", "bee", "jar", "pen",
          "boat", "bird", "lamp", "door", "road", "moon", "hill", "leaf", "salt", "wind")  # fmt: skip
_FACTS = ("It is {kind}.", "We like it.", "Few have it.", "It was here.", "Look at it.", "It may go.")
_LONGEST = 4  # facts of a reply


def pairs(part: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and records of kind preference, the same on every machine. No prompt of one part is in the other, nor what
    it is about.

    Args:
        part: "train" or "held_out".

    Raises:
        UserError: there is no such part.
    """
    if part not in PARTS:
        raise mistake("no such part of the preferences", expected=" or ".join(PARTS), found=repr(part))
    for number in range(PARTS[part]):
        rng = random.Random(f"preferences {part} {number}")
        kind, thing = _subject(rng, part)
        form = rng.choice(list(FORMS))
        prompt = request(form, kind, thing)
        chosen, rejected = _two(rng, prompt, kind, thing)
        sides = {name: {"role": "assistant", "content": text} for name, text in
                 (("chosen", chosen), ("rejected", rejected))}  # fmt: skip
        yield f"{part}/{number}", {"prompt": [{"role": "user", "content": prompt}], **sides}


def request(form: str, kind: str, thing: str) -> str:
    """What a reply is asked for with."""
    return f"Tell me of the {kind} {thing}, {form}."


def merit(prompt: str, reply: str) -> float:
    """What the rule thinks of a reply: 4 for the form that the prompt asks for, 2 for thanks at the end, and 1 less
    a twentieth of the words, but never less than 0.

    Raises:
        UserError: the prompt asks for no form of `FORMS`.
    """
    form = next((form for form in FORMS if prompt.endswith(f"{form}.")), None)
    if form is None:
        raise mistake("not a prompt of these preferences", expected=f"an end of {', '.join(FORMS)}", found=prompt[-30:])
    if not reply.strip():
        return 0.0
    count = next(n for n in range(21) if n == 20 or words(reply, "at most", n))
    return 4.0 * FORMS[form](reply) + 2.0 * ends_with(reply, THANKS) + 1 - count / 20


def reply(rng: random.Random, form: str, kind: str, thing: str) -> str:
    """A reply in a form, with or without thanks, of one to four facts."""
    facts = [f"The {thing}.", *rng.sample(_FACTS, rng.randint(0, _LONGEST - 1))]
    facts = [fact.format(kind=kind) for fact in facts] + [THANKS] * rng.randint(0, 1)
    if form == "as a list":
        return "\n".join(f"- {fact}" for fact in facts)
    text = " ".join(facts)
    return text.upper() if form == "in capitals" else text


def _two(rng: random.Random, prompt: str, kind: str, thing: str) -> tuple[str, str]:
    """Two replies, the better one first; both may be in the wrong form."""
    while True:
        found = [reply(rng, rng.choice(list(FORMS)), kind, thing) for _ in range(2)]
        scores = [merit(prompt, text) for text in found]
        if scores[0] != scores[1]:
            better = scores.index(max(scores))
            return found[better], found[1 - better]


def _subject(rng: random.Random, part: str) -> tuple[str, str]:
    """One of 375 subjects; a hash that is the same everywhere tells the parts apart, about one in five is held out."""
    while True:
        kind, thing = rng.choice(KINDS), rng.choice(THINGS)
        held_out = hashlib.blake2b(f"{kind} {thing}".encode()).digest()[0] < 51
        if held_out == (part == "held_out"):
            return kind, thing
