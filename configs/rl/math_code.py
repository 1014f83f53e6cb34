"""Mathematics and code (report, Table V; 384 and 464 steps): problems from files, and tasks about programs.

    python -m experiments.rl --config=configs/rl/math_code.py:scale=nano,initial=out/rlve/model --workdir=out/math_code
    python -m experiments.rl --config=configs/rl/math_code.py:scale=8b,phase=2,initial=DIR,data=DIR --workdir=out/two

Behind the colon: scale (nano, 8b), initial, steps, seed, devices, loop, no_length, phase (1 or 2, each filtered
with the policy that it begins with), data: the directory of 8b's files code.jsonl, code_auxiliary.jsonl, math.jsonl
(docs/benchmarks.md); attempts: a file of `experiments.make_attempts`, for prompts of Markovian RSA. The shares are the
report's. Its code_auxiliary holds such prompts of programs too, in a proportion that it does not say. For code,
--config.limits.seconds has to allow all tests of a program.
"""

from configs.rl.stage import families, lengths, stage
from zaya_jax.rl.scheduling import Source

NANO = ("program_output", "program_input", "program_rebuild", "falsify", "addition", "chain")
SHARES = {
    1: {"code": 0.203, "code_auxiliary": 0.334, "math": 0.338},
    2: {"code": 0.314, "code_auxiliary": 0.268, "math": 0.225},
}
ATTEMPTS_SHARES = {1: 0.125, 2: 0.194}  # of all groups: the report's "math TTC"


def get_config(argument=None):
    """The run; `argument` is what stands behind the colon."""
    sources = {
        "nano": lambda data, phase: families(NANO),
        "8b": lambda data, phase: tuple(
            Source(f"file:{data}/{name}.jsonl", share, cap=0) for name, share in SHARES.get(phase, {}).items()
        ),
    }
    steps = {"nano": 60, "8b": {1: 384, 2: 464}}
    options = {"length": lengths(1.0, 1.0, 0), "attempts_share": ATTEMPTS_SHARES}
    return stage(argument, "math_code", sources, steps, **options, phase=1)
