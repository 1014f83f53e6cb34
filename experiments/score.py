"""Scores tokens: the logits, or the log-probability of each next token.

    python -m experiments.score --checkpoint=DIR --tokens=tokens.npy --mask=mask.npy --output=logits.npy --dtype=float32
    python -m experiments.score --checkpoint=DIR --tokens=tokens.npy --output=logprobs.npy --kind=logprobs

Tokens are integers [rows, tokens]; the mask has 0 for padding, before or behind a row's tokens. The output is float32:
logits [rows, tokens, vocabulary], or log-probabilities [rows, tokens - 1] of tokens[:, 1:]. Padding gets 0.
"""

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "Directory of a checkpoint, or owner/name of the Hub.", required=True)
flags.DEFINE_string("tokens", None, "A .npy file of integers [rows, tokens].", required=True)
flags.DEFINE_string("mask", None, "A .npy file of the same shape: 1 for tokens, 0 for padding.")
flags.DEFINE_string("output", None, "The .npy file to write.", required=True)
flags.DEFINE_enum("kind", "logits", ["logits", "logprobs"], "What to write.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "What the model is computed in.")


def main(_):
    from zaya_jax.sampling.commands import score_file

    score_file(FLAGS.checkpoint, FLAGS.tokens, FLAGS.mask, FLAGS.output, kind=FLAGS.kind, dtype=FLAGS.dtype)


if __name__ == "__main__":
    launch.run(main)
