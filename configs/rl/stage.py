"""What the stages of reinforcement learning share: the report's algorithm (IV-B), in two sizes."""

import dataclasses

from configs.common import as_config, parse
from zaya_jax.environments.attempts import difficulties
from zaya_jax.errors import mistake
from zaya_jax.rl.config import HeldOutConfig, PipelineConfig, RlConfig
from zaya_jax.rl.generation import Decoding
from zaya_jax.rl.length_reward import LengthRewardConfig
from zaya_jax.rl.scheduling import Schedule, Source
from zaya_jax.rl.scoring import RewardConfig
from zaya_jax.train.config import CheckpointPolicy, ExecutionConfig, MeshConfig
from zaya_jax.train.optimizer import OptimizerConfig

# A rate of its own for nano: Muon's updates of matrices of 128 columns are the size of AdamW's, and a run has minutes.
RATES = {"nano": 5e-4, "8b": 5e-6}
LOOPS = {"nano": "synchronous", "8b": "pipelined"}  # nano has one device, and is to be repeated to the bit
SLOTS = 8  # of a device, at 102,402 tokens of prompt and answer: what an MI300X has room for beside the learner
SCALES = {
    "nano": {
        "decoding": Decoding(16, thinking_budget=112, answer_budget=28, slots=64, chunk=64, prompt_budget=112),
        "groups": 8,
        "rows": 16,
        "length": 256,
        "held_out": HeldOutConfig(every=20, difficulties=(0, 2), problems=12, answers=4),  # automaton has 13 at 0
        "checkpoints": CheckpointPolicy(every=5),
    },
    "8b": {
        "groups": 128,
        "length": 131_072,
        "execution": ExecutionConfig(dtype="bfloat16", remat="block"),
        "loss_chunk": 1024,
        "workers": 32,
        "export_dtype": "bfloat16",
        "checkpoints": CheckpointPolicy(every=10),
    },
}


# Prompts with attempts: the words around these, tokens of the longest, a problem with four tails of 48 or of 4K, and of
# the learner's rows.
ATTEMPTS = {"nano": ("compact", 320, 512), "8b": ("math", 20_480, 131_072)}


# Where prompts of nano's families outgrow its budget, of which the chat template takes 21 tokens.
CAPS = {"program_output": 6, "program_rebuild": 8, "falsify": 5, "shortest_path": 7, "knights": 10}


def families(names, start=0):
    """Families of our own as sources, within nano's budget for prompts."""
    return tuple(Source(name, start=start, cap=CAPS.get(name, -1)) for name in names)


def stage(argument, name, sources, steps, length=None, attempts_share=None, changes=None, **more):
    """A stage.

    Args:
        argument: what stands behind the colon: scale, initial, steps, seed, data, devices, loop, and `more`.
        name: of the stage.
        sources: {scale: (data, **more) -> environments of the schedule}.
        steps: {scale: updates, or updates by phase}.
        length: {scale: length reward}; None for none. no_length behind the colon leaves it out, as other advantages
            than MaxRL want.
        attempts_share: of prompts with attempts, or {phase: share}; behind the colon there is attempts=FILE then, a
            file of `experiments.make_attempts` or of the same form. None: there is not.
        changes: given arguments -> what else of `RlConfig` is the stage's own.
        more: further arguments, with their defaults.
    """
    offered = {"devices": 8, "loop": ""} | ({} if attempts_share is None else {"attempts": ""})
    offered |= {} if length is None else {"no_length": False}
    given = parse(argument, scale="nano", initial="", steps=0, seed=0, data=f"data/{name}", **offered, **more)
    if given.scale not in SCALES:
        expected = ", ".join(SCALES)
        raise mistake("unknown scale", where="--config=...:scale", expected=expected, found=given.scale)
    rewards = RewardConfig(length=None if length is None or given.no_length else length[given.scale])
    environments = sources[given.scale](given.data, **{key: given[key] for key in more})
    size = SCALES[given.scale] | _spread(given)
    if given.get("attempts"):
        environments, size = _with_attempts(environments, size, given, _by_phase(attempts_share, given))
    values = {
        "name": name,
        "initial": given.initial,
        "schedule": Schedule(environments, seed=given.seed),
        "rewards": rewards,
        "optimizer": optimizer(given.scale, RATES[given.scale]),
        "steps": given.steps or _by_phase(steps[given.scale], given),
        "seed": given.seed,
    }
    return as_config(RlConfig(**values | size | ({} if changes is None else changes(given))))


def _spread(given):
    """Over the devices of one machine. The 8B has a context of up to 8, the report's, and slots for 80,000 tokens each.
    In a pipeline half of the devices are the engine's; in the report it has 2 to 5 times more than the learner."""
    loop = given.loop or LOOPS[given.scale]
    if loop not in ("synchronous", "pipelined"):
        raise mistake("no such loop", where="--config=...:loop", expected="synchronous or pipelined", found=given.loop)
    groups, engine = SCALES[given.scale]["groups"], given.devices // 2 if given.scale == "8b" else 0
    pipeline = PipelineConfig(buffer=2 * groups, batches=2, devices=engine) if loop == "pipelined" else None
    if given.scale != "8b":
        return {"pipeline": pipeline}
    learner = given.devices if pipeline is None else given.devices - engine
    context, slots = min(learner, 8), SLOTS * (given.devices if pipeline is None else max(engine, 1))
    decoding = Decoding(16, 65_536, 16_384, slots=slots, chunk=4096, prompt_budget=20_480)
    rows = max(learner // context, 1)
    return {"pipeline": pipeline, "mesh": MeshConfig(context=context), "rows": rows, "decoding": decoding}


def optimizer(scale, rate):
    """Muon without momentum at a constant rate."""
    exact = "exact" if scale == "nano" else "bfloat16"
    return OptimizerConfig(
        "muon", rate, 0.0, 1.0, b1=0.9, weight_decay=0.0, momentum=0.0, decay="constant", newton_schulz_dtype=exact
    )


def _by_phase(value, given):
    if not isinstance(value, dict):
        return value
    if given.phase not in value:
        raise mistake(
            "no such phase", where="--config=...:phase", expected=" or ".join(map(str, value)), found=given.phase
        )
    return value[given.phase]


def _with_attempts(environments, size, given, share):
    """Environments and scale with prompts with attempts, which have `share` of all groups."""
    wording, longest, length = ATTEMPTS[given.scale]
    levels = difficulties(given.attempts)
    own = share / (1 - share) * sum(source.share for source in environments)
    name = f"attempts:{given.attempts}?wording={wording}"
    decoding = dataclasses.replace(size["decoding"], prompt_budget=longest)
    return (*environments, Source(name, own, levels[0], levels[-1])), size | {"decoding": decoding, "length": length}


def lengths(first, last, ramp):
    """The length reward of a stage by scale: its weight goes from `first` to `last` in `ramp` steps (eqs 8-10)."""
    full = LengthRewardConfig(first_weight=first, last_weight=last, ramp_steps=ramp)
    return {"nano": dataclasses.replace(full, max_length=142, free_tokens=8), "8b": full}
