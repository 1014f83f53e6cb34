"""Runs all stages of ZAYA1's post-training in order, each from the last one's model, and makes one page of them.

    python -m experiments.cascade --scale=nano --workdir=out/cascade
    python -m experiments.cascade --scale=nano --workdir=out/smoke --steps=2
    python -m experiments.cascade --scale=8b --initial=DIR --data=DIR --workdir=out/8b --dry_run
    python -m experiments.cascade --workdir=out/cascade --report

Killed or stopped at any moment, the same command goes on. In the workdir: a directory for each stage, data/, logs/ and
report.html, which is written anew after each stage; --report writes it while one is under way. --dry_run prints the
commands. See docs/reinforcement_learning.md.
"""

import pathlib
import sys

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_enum("scale", "nano", ["nano", "8b"], "Of all stages.")
flags.DEFINE_string("workdir", None, "Directory of the cascade: new, or that of the same one.", required=True)
flags.DEFINE_string("initial", "", "The model that finetuning begins with; nano may begin with nothing.")
flags.DEFINE_string("data", "", "Of 8b: the folder of its data (docs/reinforcement_learning.md).")
flags.DEFINE_list("steps", [], "Instead of the stages' own: 20 for all, NAME=20 for some.")
flags.DEFINE_integer("seed", 0, "Of data, weights, problems and answers.", lower_bound=0)
flags.DEFINE_list("without", [], "Stages to leave out, by their name or its beginning: attempts, rsa_after.")
flags.DEFINE_bool("dry_run", False, "Print the commands and run nothing.")
flags.DEFINE_bool("report", False, "Write the page of what there is and run nothing.")
_GIVEN = ("scale", "initial", "data", "steps", "seed", "without")


def main(_):
    from zaya_jax.report.cascade import write_cascade
    from zaya_jax.rl.cascade import CascadeConfig, stages
    from zaya_jax.rl.stages_run import run

    workdir = pathlib.Path(FLAGS.workdir)
    if FLAGS.report:
        return print(write_cascade(workdir))
    config = CascadeConfig(**{name: getattr(FLAGS, name) for name in _GIVEN})
    plan = stages(config, workdir)
    if FLAGS.dry_run:
        return print(*(stage.command for stage in plan), sep="\n")
    sys.exit(run(config, plan, workdir, write_page=write_cascade))


if __name__ == "__main__":
    launch.run(main)
