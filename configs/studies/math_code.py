"""Does the stage of mathematics and code lift the families of programs?

    python -m experiments.study --config=configs/studies/math_code.py:initial=out/base_sft/model,data=out/base \\
        --workdir=out/study_math_code

Arms from one model at nano scale: the stage on two families of programs, and more supervised finetuning on the same
demonstrations. Named beforehand: the stage against its start and against the control, on held-out programs of
difficulties 2 and 3 - what they print, and an input for an output.

12 groups an update, a rate that falls from 1e-3 to 0, and difficulties up to 3, which the demonstrations have: a
program of difficulty 4 has a sixth variable, whose name the start has never seen. A difficulty falls by one step alone
when several groups of an update fail at it, else those throw it back to 0. Left out: `program_rebuild`, of which the
start solves 1 in 100 at these difficulties, and `falsify`, where a guess that is always the same is right in a third of
the problems: rewards of guesses are noise, and Muon's steps are as large with noise as without. Also left out: addition
and chain, the stage's mathematics at nano, and the length reward.

Behind the colon: initial, data, steps, sft_steps, seeds, problems, as in configs/studies/rlve_gym.py; problems are
of each of four pairs.
"""

from configs.common import as_config, parse
from configs.studies.arms import more_sft
from zaya_jax.rl.study import START, Arm, StudyConfig

EXAMINED = ("program_output", "program_input")
HARDEST = 3
_LOOP = "configs/rl/math_code.py:scale=nano,no_length,initial={initial},seed={seed},steps="
_SOURCES = ", ".join(f'{{"environment": "{name}", "cap": {HARDEST}}}' for name in EXAMINED)
_ALL = (
    "--config.held_out.every=0", "--config.groups=12",
    "--config.optimizer.learning_rate=1e-3", "--config.optimizer.decay=linear", "--config.optimizer.final=0.0",
    "--config.schedule.adaptive.lower_needs_current=true", f"--config.schedule.sources=[{_SOURCES}]",
)  # fmt: skip


def get_config(argument=None):
    """The study; `argument` is what stands behind the colon."""
    given = parse(argument, initial="", data="out/base", steps=100, sft_steps=600, seeds=3, problems=105)
    arms = (
        Arm("math_code", "rl", f"{_LOOP}{given.steps}", _ALL),
        more_sft(given),
    )
    return as_config(
        StudyConfig(
            name="math_code",
            initial=given.initial,
            arms=arms,
            seeds=tuple(range(given.seeds)),
            comparisons=(("math_code", START), ("math_code", "more_sft")),
            environments=EXAMINED,
            difficulties=(HARDEST - 1, HARDEST),
            problems=given.problems,
        )
    )
