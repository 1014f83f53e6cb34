"""The reasoning warmup: verifiable tasks of all kinds (report, Table IV; 232 steps).

    python -m experiments.rl --config=configs/rl/warmup.py:scale=nano,initial=out/sft/model --workdir=out/warmup

Behind the colon: scale (nano, 8b), initial, steps, seed, devices, loop, no_length, as in rlve_gym.py; data, that of
8b's files math.jsonl, puzzles.jsonl (docs/benchmarks.md), filtered to a prior pass rate of at most 0.75 by
`experiments.filter_problems`. Their shares are the report's: 31.2 % mathematics; the rest are puzzles of reasoning-gym,
reasoning-core and Enigmata. attempts: a file of `experiments.make_attempts`, for prompts of Markovian RSA, which the
report has here too; how many of them it does not say (`ATTEMPTS_SHARE`).
"""

from configs.rl.stage import families, lengths, stage
from zaya_jax.rl.scheduling import Source

NANO = ("addition", "sorting", "automaton", "cipher", "chain", "program_output", "shortest_path", "knights")
ATTEMPTS_SHARE = 0.125  # of all groups: undisclosed; that of mathematics and code, phase 1


def get_config(argument=None):
    """The run; `argument` is what stands behind the colon."""
    shares = {"math": 0.312, "puzzles": 0.688}
    sources = {
        "nano": lambda data: families(NANO, start=1),
        "8b": lambda data: tuple(Source(f"file:{data}/{name}.jsonl", share, cap=0) for name, share in shares.items()),
    }
    options = {"length": lengths(0.1, 0.4, 232), "attempts_share": ATTEMPTS_SHARE}
    return stage(argument, "warmup", sources, {"nano": 30, "8b": 232}, **options)
