"""Does the RLVE stage teach what its start, and other ways to spend the time, do not?

    python -m experiments.study --config=configs/studies/rlve_gym.py:initial=out/start/model,data=out/few \\
        --workdir=out/study

Arms, all from one model, at nano scale: the stage (MaxRL and DPPO), GRPO with PPO's clip (clip-higher), rejection
sampling in the same loop, and more supervised finetuning on the same demonstrations. None has the length reward, which
only MaxRL can have. The comparisons were named before anything was run: the stage against its start, against both
controls, and against GRPO with clip.

Three environments, and 12 groups an update at a rate of 1e-3: with the stage's own five, 8 groups and 5e-4 some 55
updates changed little, and 2e-3 unlearnt some environments while it learnt others (tried with seed 100 of the first
arm). Demonstrations of difficulties 4 and 5, which held-out problems have, are few.

Behind the colon:
    initial   the model that all arms begin with
    data      directory of the demonstrations that it was finetuned on
    steps     updates of an arm of reinforcement learning
    sft_steps steps of the arm that goes on finetuning, as many as take the same time
    seeds     how many
    problems  held-out ones of each of the six pairs of environment and difficulty
"""

from configs.common import as_config, parse
from configs.studies.arms import more_sft
from zaya_jax.rl.study import START, Arm, StudyConfig

ENVIRONMENTS = ("addition", "sorting", "cipher")
_LOOP = "configs/rl/rlve_gym.py:scale=nano,no_length,initial={initial},seed={seed},steps="
_SOURCES = ", ".join(f'{{"environment": "{name}"}}' for name in ENVIRONMENTS)
_ALL = (
    "--config.held_out.every=0", "--config.groups=12", "--config.optimizer.learning_rate=1e-3",
    f"--config.schedule.sources=[{_SOURCES}]",
)  # fmt: skip


def get_config(argument=None):
    """The study; `argument` is what stands behind the colon."""
    given = parse(argument, initial="", data="out/data", steps=60, sft_steps=400, seeds=3, problems=70)
    loop = f"{_LOOP}{given.steps}"
    arms = (
        Arm("max_rl_dppo", "rl", loop, _ALL),
        Arm("grpo_clip", "rl", loop, (*_ALL, "--config.rewards.advantage.kind=grpo", "--config.loss=clip")),
        Arm("rejection", "rl", loop, (*_ALL, "--config.rewards.advantage.kind=rejection")),
        more_sft(given),
    )
    return as_config(
        StudyConfig(
            name="rlve_gym",
            initial=given.initial,
            arms=arms,
            seeds=tuple(range(given.seeds)),
            comparisons=tuple(("max_rl_dppo", other) for other in (START, "more_sft", "rejection", "grpo_clip")),
            environments=ENVIRONMENTS,
            difficulties=(4, 5),
            problems=given.problems,
        )
    )
