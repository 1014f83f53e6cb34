"""The RLVE stage: environments whose difficulty follows the policy (report, IV-B4; 400 steps, 400 environments there).

    python -m experiments.rl --config=configs/rl/rlve_gym.py:scale=nano,initial=out/sft/model --workdir=out/rlve

Behind the colon:
    scale     nano (families of our own), 8b (reasoning-gym, extra `rl`; for RLVE itself see docs/environments.md)
    initial   the model to begin with, in the hub's format
    steps     0 for the scale's own number
    seed      of problems and answers
    no_length leaves the length reward out, which MaxRL alone can have
    devices   of one machine, of the 8b: its mesh, rows and slots follow from them

Difficulties start at 0 and rise with a group's pass rate above 0.7; `rl.start_difficulty` finds better starts.
"""

from configs.rl.stage import families, lengths, stage
from zaya_jax.rl.scheduling import Source

NANO = ("addition", "sorting", "automaton", "cipher", "program_output")
GYM = ("basic_arithmetic", "chain_sum", "countdown", "family_relationships", "maze", "number_sorting", "syllogism")


def get_config(argument=None):
    """The run; `argument` is what stands behind the colon."""
    sources = {
        "nano": lambda data: families(NANO),
        "8b": lambda data: tuple(Source(f"reasoning_gym:{name}") for name in GYM),
    }
    return stage(argument, "rlve_gym", sources, {"nano": 60, "8b": 400}, length=lengths(0.4, 0.7, 400))
