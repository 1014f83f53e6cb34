"""Compiles training steps of ZAYA1-8B for MI300X, without one, to see what plans are worth.

    .venv-rocm/bin/python -m experiments.plan_rocm          # writes docs/plan_compiled.json, about 4 minutes
    python -m experiments.plan --page=docs/plan.md          # compares

Needs what `make rocm-aot` sets up. Nothing runs: stand-ins take the place of ROCm's libraries.
"""

from absl import flags

from experiments import launch
from experiments.rocm import stand_ins

FLAGS = flags.FLAGS
flags.DEFINE_string("output", "docs/plan_compiled.json", "Where the figures go.")


def main(_):
    stand_ins.restart()
    from experiments.rocm import training  # jax meets the compiler in the process that has the stand-ins

    training.run(FLAGS.output)


if __name__ == "__main__":
    launch.run(main)
