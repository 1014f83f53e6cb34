"""Compares ways to train: each with several seeds from one model, examined on the same held-out problems.

    python -m experiments.study --config=configs/studies/rlve_gym.py:initial=out/sft/model,data=out/data --workdir=out/study
    python -m experiments.study --config=... --workdir=out/study --results

Interrupted at any moment, the same command goes on. The tables are printed and, with every figure, in results.json;
--results makes them of what there is, without running anything; --curves=FILE.png draws the arms' steps (extra `plot`);
--dry_run prints the commands.
"""  # noqa: E501

import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from experiments import launch

FLAGS = flags.FLAGS
_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE.py or FILE.py:argument=value,...", lock_config=True)
flags.DEFINE_string("workdir", None, "Directory of the study: new, or that of the same study.", required=True)
flags.DEFINE_bool("results", False, "Run nothing, show what there is.")
flags.DEFINE_string("curves", "", "A PNG to draw.")
flags.DEFINE_bool("dry_run", False, "Print the commands alone.")


def main(_):
    from zaya_jax.rl.stages_run import run
    from zaya_jax.rl.study import FREE, StudyConfig, stages
    from zaya_jax.rl.study_curves import write_curves
    from zaya_jax.rl.study_results import write_results
    from zaya_jax.train.settings import from_dict

    study, workdir = from_dict(StudyConfig, launch.configuration(_CONFIG)), pathlib.Path(FLAGS.workdir)
    plan = stages(study, workdir)
    if FLAGS.dry_run:
        print("\n".join(stage.command for stage in plan))
        return
    code = 0 if FLAGS.results else run(study, plan, workdir, free=FREE)
    print(write_results(study, workdir))
    if FLAGS.curves:
        write_curves(study, workdir, FLAGS.curves)
    sys.exit(code)


if __name__ == "__main__":
    launch.run(main)
