"""Arms that several studies have."""

from zaya_jax.rl.study import Arm


def more_sft(given):
    """The control that goes on finetuning at nano: `given` has the demonstrations' directory, and the steps that take
    as long as reinforcement learning does."""
    config = "configs/sft/reasoning.py:scale=nano,initial={initial}"
    config += f",data={given.data},steps={given.sft_steps}"
    return Arm("more_sft", "train", config, ("--config.data.seed={seed}",))
