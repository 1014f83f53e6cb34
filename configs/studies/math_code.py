"""Does the stage of mathematics and code lift the families of programs?

    python -m experiments.study --config=configs/studies/math_code.py:initial=out/sft/model,data=out/data \\
        --workdir=out/study_math_code

Arms from one model at nano scale: the stage on three families of programs, and more supervised finetuning on the same
demonstrations. Named beforehand: the stage against its start and against the control, on held-out programs of
difficulties 2 and 3 - what they print, an input for an output, a program from examples.

Groups as in configs/studies/rlve_gym.py, and the stage's own rate. A difficulty falls by one step alone when several
groups of an update fail at it, else those throw it back to 0. Left out: addition and chain, the stage's mathematics at
nano; `falsify`, where a guess that is always the same is right in a third of the problems; and the length reward. With
the length reward, and another start, one seed gained 2 points; with `falsify` and a rate of 1e-3 one seed lost 4.5:
rewards of lucky guesses are noise, and Muon's steps are as large with noise as without.

Behind the colon: initial, data, steps, sft_steps, seeds, problems, as in configs/studies/rlve_gym.py.
"""

from configs.common import as_config, parse
from configs.rl.stage import CAPS
from configs.studies.arms import more_sft
from zaya_jax.rl.study import START, Arm, StudyConfig

EXAMINED = ("program_output", "program_input", "program_rebuild")
_LOOP = "configs/rl/math_code.py:scale=nano,no_length,initial={initial},seed={seed},steps="
_SOURCES = ", ".join(f'{{"environment": "{name}", "cap": {CAPS.get(name, -1)}}}' for name in EXAMINED)
_ALL = (
    "--config.held_out.every=0", "--config.groups=12",
    "--config.schedule.adaptive.lower_needs_current=true", f"--config.schedule.sources=[{_SOURCES}]",
)  # fmt: skip


def get_config(argument=None):
    """The study; `argument` is what stands behind the colon."""
    given = parse(argument, initial="", data="out/data", steps=60, sft_steps=400, seeds=3, problems=70)
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
            difficulties=(2, 3),
            problems=given.problems,
        )
    )
