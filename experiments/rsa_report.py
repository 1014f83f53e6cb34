"""Makes one HTML page of a Markovian RSA run: each round's candidates, whose tails they read, how answers converge.

    python -m experiments.rsa_report --run=out/rsa
    python -m experiments.rsa_report --run=out/rsa --output=rsa.html

The page needs nothing but itself: no network, no other file; it opens in any browser. Reads settings.json,
problems.jsonl and candidates.jsonl of the run, also of one that is still going on.
"""

import pathlib

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("run", None, "The run's directory.", required=True)
flags.DEFINE_string("output", None, "The page; by default candidates.html in the run's directory.")


def main(_):
    from zaya_jax.report.candidates import write_candidates

    print(write_candidates(FLAGS.run, FLAGS.output or pathlib.Path(FLAGS.run) / "candidates.html"))


if __name__ == "__main__":
    launch.run(main)
