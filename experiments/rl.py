"""Reinforcement learning with verifiable rewards: a configuration, and a directory that holds all that comes of it.

    python -m experiments.rl --config=configs/rl/rlve_gym.py:scale=nano,initial=out/sft/model --workdir=out/rlve

Killed or stopped at any moment, the same command goes on from the last checkpoint. In the workdir: config.json,
metrics.jsonl (steps, looks at held-out problems, warnings), rollouts.jsonl (every answer), checkpoints/, and at the end
model/ in the Hub's format.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from experiments import launch

FLAGS = flags.FLAGS
_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE.py or FILE.py:argument=value,...", lock_config=True)
flags.DEFINE_string("workdir", None, "Directory of the run: new, or that of the same run.", required=True)


def main(_):
    from zaya_jax.rl.config import RlConfig
    from zaya_jax.rl.run import run
    from zaya_jax.train.settings import from_dict

    run(from_dict(RlConfig, launch.configuration(_CONFIG)), pathlib.Path(FLAGS.workdir))


if __name__ == "__main__":
    launch.run(main)
