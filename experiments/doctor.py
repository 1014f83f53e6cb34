"""Examines this machine: versions, devices, small computations, kernels, settings. Each line is OK or what to do.

    python -m experiments.doctor

Exit code 1 if something FAILs. WARN works, but something should be known or could be better.
"""

import collections
import sys

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS


def main(_):
    from zaya_jax.report.doctor import examine

    counts = collections.Counter()
    for finding in examine(FLAGS.compile_cache_dir):
        print(finding, flush=True)
        counts[finding.level] += 1
    print(", ".join(f"{counts[level]} {level}" for level in ("OK", "WARN", "FAIL")))
    sys.exit(1 if counts["FAIL"] else 0)


if __name__ == "__main__":
    launch.run(main)
