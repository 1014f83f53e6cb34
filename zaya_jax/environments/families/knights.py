"""`knights`: who tells the truth (+) and who lies (-). "knights a:b=a b:-c c:+a" -> "a-b+c-".

A knight says what is true, a knave what is false; everybody says one thing (after Smullyan, "What Is the Name of This
Book?", 1978): "+b" b is a knight, "-b" b is a knave, "b=c" both are of one kind, "b#c" they are not.

There is one solution: somebody compares himself with another one, which tells that one's kind whoever speaks; what that
one says tells the next one's, and so on around.

Difficulty d: 3 + d people; a statement is about two of them with probability (d + 1) / (d + 4) where it can be.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

from zaya_jax.environments.families.family import Slip, environment, lines_with_marks, same, symbol

_NEAR = 2


def make(chance: random.Random, difficulty: int) -> tuple[str, dict[str, Any]]:
    """Draws kinds, the order in which they can be found out, and what everybody says."""
    names = [symbol(number) for number in range(3 + difficulty)]
    knight = {name: chance.random() < 0.5 for name in names}
    order = chance.sample(names, len(names))
    said = {}
    for place, speaker in enumerate(order):
        about = order[(place + 1) % len(order)]
        pair = place > 0 and chance.random() < (difficulty + 1) / (difficulty + 4)
        known = speaker if about == order[0] else chance.choice(order[max(0, place - _NEAR) : place]) if pair else None
        said[speaker] = _statement(chance, knight, speaker, about, known)
    people = " ".join(f"{name}:{said[name]}" for name in names)
    return f"knights {people}", {"order": order, "said": said, "answer": _listed(knight)}


def work(hidden: Mapping[str, Any], slip: Slip) -> tuple[list[str], str]:
    """A line a person: "2:b+:-c>c-" concludes from what the knight b says that c is a knave."""
    order, said = hidden["order"], hidden["said"]
    knight: dict[str, bool] = {}
    steps, known = [], []
    for speaker, about in zip([order[-1], *order], order):
        right = _concluded(said[speaker], speaker, about, knight)
        sign = _sign(knight[speaker]) if speaker in knight else ""
        knight[about] = slip(right, [not right])
        steps.append(f"{speaker}{sign}:{said[speaker]}>{about}{_sign(knight[about])}")
        known.append(_listed(knight))
    return lines_with_marks(steps, lambda number: known[number - 1]), _listed(knight)


def _statement(chance: random.Random, knight: Mapping[str, bool], speaker: str, about: str, known: str | None) -> str:
    """What the speaker may say about somebody, alone or together with somebody who is known."""
    if known is None:
        return ("+" if knight[about] == knight[speaker] else "-") + about
    pair = chance.sample([about, known], 2)
    alike = (knight[about] == knight[known]) == knight[speaker]
    return ("=" if alike else "#").join(pair)


def _concluded(statement: str, speaker: str, about: str, knight: Mapping[str, bool]) -> bool:
    """Whether the one whom a statement is about is a knight."""
    if statement[0] in "+-":
        return (statement[0] == "+") == knight[speaker]
    pair, alike = re.split("[=#]", statement), "=" in statement
    other = pair[pair[0] == about]
    if other == speaker:  # "I am as he is": true of a knight's knight, false of a knave's, so he is one
        return alike
    return knight[other] == (alike == knight[speaker])


def _listed(knight: Mapping[str, bool]) -> str:
    """Names with their signs, in the order of `symbol`."""
    return "".join(name + _sign(knight[name]) for name in sorted(knight, key=lambda name: (int(name[1:] or 0), name)))


def _sign(knight: bool) -> str:
    return "+" if knight else "-"


KNIGHTS = environment("knights", make, r"(?:[a-z][0-9]{0,6}[+-])+", same, work)
