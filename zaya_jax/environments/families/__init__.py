"""Task families of our own: problems without end, compact enough for a model that reads bytes.

    problem = FAMILIES["addition"].generate(seed, difficulty)
    verdict = FAMILIES["addition"].verify(problem, response)

| family | asked for | positions |
|---|---|---|
| `cipher`, `addition`, `automaton` | a long answer whose positions can be checked one by one | yes |
| `chain` | the end of a computation that is longer than a budget | |
| `program_output`, `program_input` | what a program prints; an input that leads to an output | |
| `program_rebuild`, `falsify` | a program from examples; an input on which two programs differ | |
| `sorting`, `knights`, `shortest_path` | an order, kinds, a path | the first two |

Each file says how its size grows with the difficulty.
"""

from __future__ import annotations

from zaya_jax.environments.families.addition import ADDITION
from zaya_jax.environments.families.automaton import AUTOMATON
from zaya_jax.environments.families.chain import CHAIN
from zaya_jax.environments.families.cipher import CIPHER
from zaya_jax.environments.families.falsify import FALSIFY
from zaya_jax.environments.families.family import Family, spoil
from zaya_jax.environments.families.knights import KNIGHTS
from zaya_jax.environments.families.positions import POSITIONAL, positions
from zaya_jax.environments.families.program_input import PROGRAM_INPUT
from zaya_jax.environments.families.program_output import PROGRAM_OUTPUT
from zaya_jax.environments.families.program_rebuild import PROGRAM_REBUILD
from zaya_jax.environments.families.shortest_path import SHORTEST_PATH
from zaya_jax.environments.families.sorting import SORTING

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        CIPHER,
        ADDITION,
        AUTOMATON,
        CHAIN,
        PROGRAM_OUTPUT,
        PROGRAM_INPUT,
        PROGRAM_REBUILD,
        FALSIFY,
        SORTING,
        SHORTEST_PATH,
        KNIGHTS,
    )
}

__all__ = ["FAMILIES", "POSITIONAL", "Family", "positions", "spoil"]
