"""`cipher`: a text in another alphabet, by a key in the prompt. "cipher ax bq cd|abca" -> "xqdx".

Difficulty d: 4 + d letters of text, 3 + d // 2 pairs in the key (26 at most). Every position is checkable on its own.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from string import ascii_lowercase as LETTERS
from typing import Any

from zaya_jax.environments.families.family import Slip, environment, lines_with_marks, same


def make(chance: random.Random, difficulty: int) -> tuple[str, dict[str, Any]]:
    """Draws key and text."""
    size = min(26, 3 + difficulty // 2)
    key = dict(sorted(zip(chance.sample(LETTERS, size), chance.sample(LETTERS, size))))
    text = "".join(chance.choice(list(key)) for _ in range(4 + difficulty))
    pairs = " ".join(plain + secret for plain, secret in key.items())
    return f"cipher {pairs}|{text}", {"key": key, "text": text, "answer": "".join(key[letter] for letter in text)}


def work(hidden: Mapping[str, Any], slip: Slip) -> tuple[list[str], str]:
    """A line a letter: "2:bq" says that the second letter, b, becomes q."""
    key, steps, found = hidden["key"], [], ""
    for letter in hidden["text"]:
        made = slip(key[letter], [other for other in key.values() if other != key[letter]])
        steps.append(letter + made)
        found += made
    return lines_with_marks(steps, lambda number: found[:number]), found


CIPHER = environment("cipher", make, "[a-z]+", same, work)
