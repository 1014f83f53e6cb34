"""Which problems may be learnt from, and which are kept to be looked at.

A prompt alone decides: what is trained on anywhere cannot be held out elsewhere.
"""

from __future__ import annotations

import hashlib

HELD_OUT = 10  # one prompt in so many


def part_of(prompt: str) -> str:
    """The part that a prompt belongs to, by its SHA-256: "held_out" for one in `HELD_OUT`; for whoever trains."""
    held_out = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") % HELD_OUT == 0
    return "held_out" if held_out else "train"
