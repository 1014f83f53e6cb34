"""Writes the model of any checkpoint of a run in the hub's format; a run that is over has done so itself.

    python -m experiments.export --workdir=out/phase1 --output=out/at-1200 --step=1200
    python -m experiments.export --workdir=out/lora --output=out/merged --dtype=bfloat16

Adapters are merged into the model that they were trained on. The run may be under way: it is only read.
"""

import pathlib

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
flags.DEFINE_string("output", None, "Directory to write; an older export there is replaced.", required=True)
flags.DEFINE_integer("step", None, "Of the checkpoint; the newest by default.")
flags.DEFINE_enum("dtype", "", ["", "float32", "bfloat16"], "Of the weights; empty: as the run has it.")


def main(_):
    from zaya_jax.train.exporting import export_step

    step = export_step(pathlib.Path(FLAGS.workdir), pathlib.Path(FLAGS.output), FLAGS.step, FLAGS.dtype)
    print(f"the model after step {step:,} is in {FLAGS.output}")


if __name__ == "__main__":
    launch.run(main)
