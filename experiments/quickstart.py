"""Trains a small ZAYA1 on text that every Python ships, saves it in the Hub's format, loads it back and samples it.

    python -m experiments.quickstart
    python -m experiments.quickstart --seconds=300 --output=out/longer --prompt='A class is '

Tells what it does on stdout. Leaves in the output: model/ (weights, configuration, tokenizer), metrics.jsonl (a line
a step), loss.png, and validation.npy (held-out tokens for `experiments.score`). An earlier run there is replaced.
"""

import pathlib

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("output", "out/quickstart", "Directory of what is left behind.")
flags.DEFINE_float("seconds", 90.0, "How long to train, compilation included.")
flags.DEFINE_integer("steps", None, "Train for so many steps instead.")
flags.DEFINE_integer("seed", 0, "Of the initial weights, the windows of text and the sample.", lower_bound=0)
flags.DEFINE_string("prompt", None, "What the trained model continues; by default the title of a held-out page.")
flags.DEFINE_integer("new_tokens", 200, "Longest sample, in bytes.", lower_bound=1)


def main(_):
    from zaya_jax.train.loop import Budget
    from zaya_jax.train.quickstart import Quickstart, run

    chosen = {} if FLAGS.prompt is None else {"prompt": FLAGS.prompt}
    job = Quickstart(
        output=pathlib.Path(FLAGS.output),
        budget=Budget(FLAGS.seconds, FLAGS.steps),
        seed=FLAGS.seed,
        new_tokens=FLAGS.new_tokens,
        **chosen,
    )
    run(job)


if __name__ == "__main__":
    launch.run(main)
