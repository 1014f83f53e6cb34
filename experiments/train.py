"""Trains a ZAYA1: a configuration, and a directory that holds all that comes of it.

    python -m experiments.train --config=configs/pretrain/phase1.py:scale=nano --workdir=out/phase1
    python -m experiments.train --config=configs/pretrain/phase1.py:runlocal --workdir=out/smoke --config.rows=4
    python -m experiments.train --config=configs/sft/sft.py:scale=8b --dry_run --topology=1x8 --chip=mi300x

Killed or stopped at any moment, the same command goes on from the last checkpoint. SIGTERM and Ctrl-C stop it with one.
In the workdir: config.json, metrics.jsonl, examples.jsonl, checkpoints/, and at the end model/ in the Hub's format.
`python -m experiments.report --workdir=DIR` draws the curves.
"""

import pathlib

from absl import app, flags
from ml_collections import config_flags

from experiments import launch

FLAGS = flags.FLAGS
_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE.py or FILE.py:argument=value,...", lock_config=True)
flags.DEFINE_string("workdir", None, "Directory of the run: new, or that of the same run.")
flags.DEFINE_integer("profile", 0, "Record so many steps for XProf, in the workdir's profile/.", lower_bound=0)
flags.DEFINE_list("sinks", [], "Where metrics go besides metrics.jsonl: tensorboard, wandb (extras).")
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where no launcher (Slurm, Open MPI) tells.")
flags.DEFINE_integer("processes", None, "How many processes there are, likewise.")
flags.DEFINE_integer("process", None, "Which one this is, from 0, likewise.")
flags.DEFINE_bool("dry_run", False, "Print the plan - parameters, FLOPs, bytes of a device, time - and train nothing.")
flags.DEFINE_string("topology", "", "Of --dry_run: NODESxDEVICES; empty: this machine's devices.")
flags.DEFINE_string("chip", "", "Of --dry_run: a chip of zaya_jax/train/chips.py; empty: this machine's.")
flags.DEFINE_bool("allow_older", False, "Go on from an older checkpoint if the newest is damaged.")


def main(_):
    from zaya_jax.parallel import initialize
    from zaya_jax.train.config import RunConfig
    from zaya_jax.train.plan_config import show
    from zaya_jax.train.run import Options, run
    from zaya_jax.train.settings import from_dict

    config = from_dict(RunConfig, launch.configuration(_CONFIG))
    if FLAGS.dry_run:
        return show(config, FLAGS.topology, FLAGS.chip)
    if FLAGS.workdir is None:
        raise app.UsageError("--workdir is required; --help shows an example")
    initialize(FLAGS.coordinator, FLAGS.processes, FLAGS.process)
    run(config, pathlib.Path(FLAGS.workdir), Options(FLAGS.allow_older, FLAGS.profile, tuple(FLAGS.sinks)))


if __name__ == "__main__":
    launch.run(main)
