"""Makes one HTML page of runs: of training, side by side, or of reinforcement learning, one below the other.

    python -m experiments.report --workdir=out/run
    python -m experiments.report --workdir=out/rlve
    python -m experiments.report --workdir=out/muon --workdir=out/adamw --output=out/optimizers.html --png

The page needs nothing but itself: no network, no other file; it opens in any browser. --png draws the main curves
beside it (extra `plot`). Reads metrics.jsonl of each run, also of one that is still going on.
"""

import pathlib

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_multi_string("workdir", None, "A run's directory; several to compare them.", required=True)
flags.DEFINE_string("output", None, "The page; by default report.html in the first run's directory.")
flags.DEFINE_bool("png", False, "Draw the main curves as PNGs beside the page.")


def main(_):
    from zaya_jax.report.reports import write_report

    output = FLAGS.output or pathlib.Path(FLAGS.workdir[0]) / "report.html"
    for file in write_report(FLAGS.workdir, output, FLAGS.png):
        print(file)


if __name__ == "__main__":
    launch.run(main)
