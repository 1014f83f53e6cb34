"""Validates this machine, for whoever has a GPU: one report to read, and one to attach to an issue.

    python -m experiments.validate --output=validation
    python -m experiments.validate --output=validation --sections=kernels,benchmark

Kernels against their definitions, logits and gradients of a model on the kernels, logits that transformers computed, a
short training, decoding, and the kernels' benchmark. Writes validation.json and validation.md. What this machine cannot
run is said. Exit code 1 if something FAILs.
"""

import pathlib
import sys

from absl import flags

from experiments import launch
from experiments.validation import sections

FLAGS = flags.FLAGS
flags.DEFINE_string("output", "validation", "The directory that the reports are written to.")
flags.DEFINE_list("sections", list(sections.SECTIONS), f"Of {', '.join(sections.SECTIONS)}.")
flags.DEFINE_integer("repeats", 10, "Counted repetitions of the benchmark.", lower_bound=1)


def main(_):
    output, report = pathlib.Path(FLAGS.output), sections.Report()
    sections.check(FLAGS.sections, output)
    for section in FLAGS.sections:
        for line in sections.run(section, report, FLAGS.repeats):
            print(line, flush=True)
    for file in report.write(output):
        print(f"wrote {file}")
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    launch.run(main)
