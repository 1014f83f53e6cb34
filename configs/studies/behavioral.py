"""Does the behavioural stage raise the reward model's score, and does it harm what was learnt before?

    python -m experiments.study --workdir=out/study_behavioral \\
        --config=configs/studies/behavioral.py:initial=out/math_code/model,reward=out/reward/model

The three phases one after the other, at nano scale, against their start. Named beforehand, each group of problems by
itself: the score rises on held-out requests; harm to instructions or reasoning is a lower bound of the change of avg@k
below -3 points.

Behind the colon:
    initial   the model that the stage begins with
    reward    the reward model
    steps     updates of a phase
    seeds     how many
    problems  held-out ones of each environment
"""

from configs.common import as_config, parse
from zaya_jax.rl.study import START, Arm, ProblemGroup, StudyConfig

GROUPS = {
    "chat": ("requests",),
    "instructions": ("simple_instructions", "hard_instructions"),
    "reasoning": ("addition", "sorting", "cipher"),
}
PHASES = ("chat", "simple", "hard")


def get_config(argument=None):
    """The study; `argument` is what stands behind the colon."""
    given = parse(argument, initial="", reward="", steps=20, seeds=3, problems=100)
    return as_config(
        StudyConfig(
            name="behavioral",
            initial=given.initial,
            arms=tuple(_arm(place, given) for place in range(len(PHASES))),
            seeds=tuple(range(given.seeds)),
            comparisons=((PHASES[-1], START),),
            environments=tuple(name for own in GROUPS.values() for name in own),
            difficulties=(1,),
            problems=given.problems,
            samples=8,
            thinking_budget=112,
            answer_budget=100,
            reward=given.reward,
            groups=tuple(ProblemGroup(name, own) for name, own in GROUPS.items()),
        )
    )


def _arm(place, given):
    file = f"configs/rl/behavioral.py:scale=nano,phase={PHASES[place]},initial={{initial}},seed={{seed}}"
    config = f"{file},reward={given.reward},steps={given.steps}"
    return Arm(PHASES[place], "rl", config, ("--config.held_out.every=0",), PHASES[place - 1] if place else "")
