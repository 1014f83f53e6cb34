"""Trains a ZAYA1: a configuration, and a directory that holds all that comes of it.

    python -m experiments.train --config=configs/pretrain/phase1.py:scale=nano --workdir=out/phase1
    python -m experiments.train --config=configs/pretrain/phase1.py:runlocal --workdir=out/smoke --config.rows=4

Killed or stopped at any moment, the same command goes on from the last checkpoint. SIGTERM and Ctrl-C stop it with one.
In the workdir: config.json, metrics.jsonl, examples.jsonl, checkpoints/, and at the end model/ in the Hub's format.
`python -m experiments.report --workdir=DIR` draws the curves.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from experiments import launch

FLAGS = flags.FLAGS
_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE.py or FILE.py:argument=value,...", lock_config=True)
flags.DEFINE_string("workdir", None, "Directory of the run: new, or that of the same run.", required=True)
flags.DEFINE_integer("profile", 0, "Record so many steps for XProf, in the workdir's profile/.")
flags.DEFINE_list("sinks", [], "Where metrics go besides metrics.jsonl: tensorboard, wandb (extras).")
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where no launcher (Slurm, Open MPI) tells.")
flags.DEFINE_integer("processes", None, "How many processes there are, likewise.")
flags.DEFINE_integer("process", None, "Which one this is, from 0, likewise.")
flags.DEFINE_bool("allow_older", False, "Go on from an older checkpoint if the newest is damaged.")


def main(_):
    from zaya_jax.parallel import initialize
    from zaya_jax.train.config import RunConfig
    from zaya_jax.train.run import Options, run
    from zaya_jax.train.settings import from_dict

    config = from_dict(RunConfig, launch.configuration(_CONFIG))
    initialize(FLAGS.coordinator, FLAGS.processes, FLAGS.process)
    run(config, pathlib.Path(FLAGS.workdir), Options(FLAGS.allow_older, FLAGS.profile, tuple(FLAGS.sinks)))


if __name__ == "__main__":
    launch.run(main)
