"""Reads the answers of a run of reinforcement learning: tables, texts, a page.

python -m experiments.rollouts --workdir=out/rlve
python -m experiments.rollouts --workdir=out/rlve --steps=50-60 --environment=addition --verdict=wrong --show=5
python -m experiments.rollouts --workdir=out/a --against=out/b
python -m experiments.rollouts --workdir=out/rlve --show=200 --html=rollouts.html
"""

import itertools

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
flags.DEFINE_string("against", None, "Directory of another run, to compare with.")
flags.DEFINE_string("steps", "", "5, or 5-9; empty: all.")
flags.DEFINE_string("environment", "", "Of this one only.")
flags.DEFINE_enum("verdict", "any", ["any", "right", "wrong", "none"], "none: the verifier failed.")
flags.DEFINE_bool("taught", None, "Only what the learner got; --notaught: only what it did not get.")
flags.DEFINE_string("contains", "", "A piece of the text.")
flags.DEFINE_integer("show", 0, "How many answers are shown.", lower_bound=0)
flags.DEFINE_string("html", None, "Where the page goes.")


def main(_):
    from zaya_jax.rl import rollout_view as view

    steps = view.parse_steps(FLAGS.steps)
    wanted = view.Wanted(steps, FLAGS.environment, FLAGS.verdict, FLAGS.taught, FLAGS.contains)
    lines = view.summary(view.read(FLAGS.workdir, wanted))
    if FLAGS.against:
        lines = view.compared(lines, view.summary(view.read(FLAGS.against, wanted)))
    print(view.columns(lines))
    shown = list(itertools.islice(view.read(FLAGS.workdir, wanted), FLAGS.show))
    if FLAGS.html:
        view.write_rollouts(FLAGS.html, f"Rollouts of {FLAGS.workdir}", lines, shown)
        print(FLAGS.html)
    else:
        print(*map(view.text_of, shown), sep="\n")


if __name__ == "__main__":
    launch.run(main)
