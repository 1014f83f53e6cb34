"""Talks with a model in the terminal.

    python -m experiments.chat --checkpoint=DIR --temperature=0.6

Reasoning is shown dim. /help lists the commands; Ctrl-C stops an answer. Through a pipe, every line is a message:

    echo "What is 2 + 2?" | python -m experiments.chat --checkpoint=DIR
"""

import sys

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "Directory of a checkpoint, or owner/name of the Hub.", required=True)
flags.DEFINE_string("system", None, "A system message.")
flags.DEFINE_bool("thinking", True, "Ask the chat template for reasoning.")
flags.DEFINE_integer("max_new_tokens", 4096, "Longest answer, reasoning included.", lower_bound=1)
flags.DEFINE_float("temperature", 1.0, "0 is greedy.")
flags.DEFINE_float("top_p", 0.95, "Keep the most probable tokens of this mass; 1 is off.")
flags.DEFINE_integer("top_k", -1, "Keep this many most probable tokens; -1 is off.")
flags.DEFINE_float("min_p", 0.0, "Keep tokens this many times as probable as the first; 0 is off.")
flags.DEFINE_integer("seed", 0, "Another seed gives other answers.", lower_bound=0)
flags.DEFINE_enum("dtype", "bfloat16", ["float32", "bfloat16"], "What the model is computed in.")


def main(_):
    import zaya_jax
    from zaya_jax.sampling.chat import Chat
    from zaya_jax.sampling.request import Sampling
    from zaya_jax.sampling.terminal import converse

    sampling = Sampling(FLAGS.temperature, FLAGS.top_p, FLAGS.top_k, FLAGS.min_p)
    model, variables, tokenizer = zaya_jax.load(FLAGS.checkpoint, dtype=FLAGS.dtype)
    chat = Chat(
        model,
        variables,
        tokenizer,
        sampling=sampling,
        max_new_tokens=FLAGS.max_new_tokens,
        seed=FLAGS.seed,
        system=FLAGS.system,
        thinking=FLAGS.thinking,
    )
    converse(chat, sys.stdin, sys.stdout)


if __name__ == "__main__":
    launch.run(main)
