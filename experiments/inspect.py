"""Shows what a checkpoint holds, and whether it looks sound.

    python -m experiments.inspect --checkpoint=DIR

Layout, parameters, memory of the cache, a table of the layers with their balancing biases, and checks: OK, or WARN
with what to do. Reads headers and small vectors only, so it takes seconds whatever the size. Exit code 2 if the
checkpoint is refused.
"""

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "Directory of a checkpoint, or owner/name of the Hub.", required=True)


def main(_):
    from zaya_jax.checkpoint import open_checkpoint, resolve
    from zaya_jax.checkpoint.summary import summarize
    from zaya_jax.checkpoint.summary_text import render

    print(render(summarize(open_checkpoint(resolve(FLAGS.checkpoint)))))


if __name__ == "__main__":
    launch.run(main)
