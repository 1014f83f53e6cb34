"""Reinforcement learning with verifiable rewards: a configuration, and a directory that holds all that comes of it.

    python -m experiments.rl --config=configs/rl/rlve_gym.py:scale=nano,initial=out/sft/model --workdir=out/rlve
    python -m experiments.rl --config=configs/rl/rlve_gym.py:scale=8b,initial=zaya1_8b --dry_run --topology=1x8 --chip=mi300x

Killed or stopped at any moment, the same command goes on from the last checkpoint. In the workdir: config.json,
metrics.jsonl (steps, looks at held-out problems, warnings), rollouts.jsonl (every answer), checkpoints/, and at the end
model/ in the Hub's format.
"""  # noqa: E501

import pathlib

from absl import app, flags
from ml_collections import config_flags

from experiments import launch

FLAGS = flags.FLAGS
_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE.py or FILE.py:argument=value,...", lock_config=True)
flags.DEFINE_string("workdir", None, "Directory of the run: new, or that of the same run.")
flags.DEFINE_bool("dry_run", False, "Print what each device's memory holds, and stop; initial may be a preset.")
flags.DEFINE_string("topology", "", "Of --dry_run: 1xDEVICES; empty: this machine's devices.")
flags.DEFINE_string("chip", "", "Of --dry_run: a chip of zaya_jax/train/chips.py; empty: this machine's.")


def main(_):
    from zaya_jax.rl.config import RlConfig
    from zaya_jax.rl.plan_command import show
    from zaya_jax.rl.run import run
    from zaya_jax.train.settings import from_dict

    config = from_dict(RlConfig, launch.configuration(_CONFIG))
    if FLAGS.dry_run:
        return show(config, FLAGS.topology, FLAGS.chip)
    if FLAGS.workdir is None:
        raise app.UsageError("--workdir is required; --help shows an example")
    run(config, pathlib.Path(FLAGS.workdir))


if __name__ == "__main__":
    launch.run(main)
