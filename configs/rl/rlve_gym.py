"""The RLVE stage: environments whose difficulty follows the policy (report, IV-B4; 400 steps, 400 environments there).

    python -m experiments.rl --config=configs/rl/rlve_gym.py:scale=nano,initial=out/sft/model --workdir=out/rlve

Behind the colon:
    scale     nano (families of our own), 8b (reasoning-gym, extra `rl`; for RLVE itself see docs/environments.md)
    initial   the model to begin with, in the hub's format
    steps     0 for the scale's own number
    seed      of problems and answers
    no_length leaves the length reward out, which MaxRL alone can have
    devices   of one machine, of the 8b: its mesh, rows and slots follow from them
    loop      synchronous, or pipelined (samples while it learns, as in the report); the 8b's is pipelined
    starts    found (by Thompson sampling over an IRT model, `rl.start_difficulty`) or given (0); the 8b's are found

Difficulties rise with a group's pass rate above 0.7.
"""

from configs.rl.stage import families, lengths, stage
from zaya_jax.errors import mistake
from zaya_jax.rl.config import HeldOutConfig
from zaya_jax.rl.scheduling import Source
from zaya_jax.rl.start_difficulty import Search

NANO = ("addition", "sorting", "automaton", "cipher", "program_output")
GYM = (
    "basic_arithmetic",
    "chain_sum",
    "family_relationships",
    "letter_counting",
    "maze",
    "number_sorting",
    "syllogism",
)


def get_config(argument=None):
    """The run; `argument` is what stands behind the colon."""
    sources = {
        "nano": lambda data, **_: families(NANO),
        "8b": lambda data, **_: tuple(Source(f"reasoning_gym:{name}") for name in GYM),
    }
    steps = {"nano": 60, "8b": 400}
    return stage(argument, "rlve_gym", sources, steps, length=lengths(0.4, 0.7, 400), changes=_changes, starts="")


def _changes(given):
    found = {"": given.scale == "8b", "found": True, "given": False}
    if given.starts not in found:
        raise mistake("no such way", where="--config=...:starts", expected="found or given", found=given.starts)
    looks = {} if given.scale == "nano" else {"held_out": HeldOutConfig(every=20, difficulties=(0, 2))}
    return looks | ({"start": Search()} if found[given.starts] else {})
