"""Trains a reward model on pairs of replies, and tells how many held-out pairs it ranks as they were ranked.

    python -m experiments.reward_model --config=configs/rl/reward_model.py:scale=nano --workdir=out/reward
    python -m experiments.reward_model --config=configs/rl/reward_model.py:scale=nano,initial=out/sft/model \\
        --workdir=out/reward --config.reward.margin=0.5

As `experiments.train`, which takes the same configuration: stopped, the same command goes on. In the workdir also
model/, with the head beside the weights, and pairs.json: accuracy, ties and mean margin of each held-out source.
"""

import pathlib

from absl import app, flags
from ml_collections import config_flags

from experiments import launch

FLAGS = flags.FLAGS
_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE.py or FILE.py:argument=value,...", lock_config=True)
flags.DEFINE_string("workdir", None, "Directory of the run: new, or that of the same run.")


def main(_):
    from zaya_jax.train.config import RunConfig
    from zaya_jax.train.reward_run import run_reward_model
    from zaya_jax.train.settings import from_dict

    if FLAGS.workdir is None:
        raise app.UsageError("--workdir is required; --help shows an example")
    run_reward_model(from_dict(RunConfig, launch.configuration(_CONFIG)), pathlib.Path(FLAGS.workdir))


if __name__ == "__main__":
    launch.run(main)
