"""Compiles the whole ZAYA1-8B for MI300X with XLA's own compiler for ROCm, on a machine that has neither.

    python -m experiments.rocm_aot            # compare with docs/mi300x.json, write docs/mi300x.md
    python -m experiments.rocm_aot --update   # write both anew
    python -m experiments.rocm_aot --programs=decode_1_cache_8192 --keep=out/rocm

Prefill, decoding step and training step on one MI300X, and sharded over 8: memory a device, kernels, library calls,
collectives; the expert layer's memory against what is counted by hand. Exit code 1 if a program does not compile or
fit, holds an array it must not, or a figure is more than 5 % from the committed one. Nothing runs: stand-ins take the
place of ROCm's libraries. Needs the extra `rocm`, gcc, readelf and nm: `make rocm-aot` sets up an environment.
"""

import sys

from absl import flags

from experiments import launch
from experiments.rocm import stand_ins

FLAGS = flags.FLAGS
flags.DEFINE_list("programs", [], "Only these; the page is then not written. Their names are the keys of --committed.")
flags.DEFINE_string("output", "docs/mi300x.md", "Where the page goes.")
flags.DEFINE_string("committed", "docs/mi300x.json", "The figures to compare with.")
flags.DEFINE_bool("update", False, "Write the committed figures anew instead of comparing with them.")
flags.DEFINE_string("keep", None, "A directory for the compiled programs' text.")


def main(_):
    stand_ins.restart()
    from experiments.rocm import compiling  # jax meets the compiler in the process that has the stand-ins

    sys.exit(compiling.run(FLAGS.programs, FLAGS.output, FLAGS.committed, FLAGS.update, FLAGS.keep))


if __name__ == "__main__":
    launch.run(main)
