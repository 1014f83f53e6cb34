"""Continues prompts.

    python -m experiments.generate --checkpoint=DIR --prompt="The capital of France is" --temperature=0
    python -m experiments.generate --checkpoint=DIR --prompts=prompts.jsonl --output=answers.jsonl --max_new_tokens=1024

A row of prompts.jsonl has `prompt` (a text to continue), `messages` (a chat) or `prompt_tokens`. A row of the output
has all of it and `prompt_tokens`, `tokens`, `text`, `logprobs` (the model's own), `logprobs_sampling` (after
temperature and filters) and `finish_reason`. Without --output, a single answer is shown as it is written.
"""

import sys

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "Directory of a checkpoint, or owner/name of the Hub.", required=True)
flags.DEFINE_string("prompt", None, "A text to continue.")
flags.DEFINE_string("prompts", None, "A jsonl file of prompts.")
flags.DEFINE_string("output", None, "The jsonl file to write.")
flags.DEFINE_integer("max_new_tokens", 256, "Longest answer.", lower_bound=1)
flags.DEFINE_float("temperature", 1.0, "0 is greedy.")
flags.DEFINE_float("top_p", 0.95, "Keep the most probable tokens of this mass; 1 is off.")
flags.DEFINE_integer("top_k", -1, "Keep this many most probable tokens; -1 is off.")
flags.DEFINE_float("min_p", 0.0, "Keep tokens this many times as probable as the first; 0 is off.")
flags.DEFINE_integer("seed", 0, "Another seed gives other answers.", lower_bound=0)
flags.DEFINE_multi_string("stop", [], "A text that ends an answer; may be given again.")
flags.DEFINE_bool("thinking", True, "Ask the chat template for reasoning (rows with messages).")
flags.DEFINE_integer("batch_size", 8, "Answers written together.", lower_bound=1)
flags.DEFINE_enum("dtype", "bfloat16", ["float32", "bfloat16"], "What the model is computed in.")


def main(_):
    from zaya_jax.sampling.commands import Settings, answer_file, answer_text, one_of
    from zaya_jax.sampling.request import Sampling

    one_of(FLAGS.prompt, FLAGS.prompts)
    settings = Settings(
        sampling=Sampling(FLAGS.temperature, FLAGS.top_p, FLAGS.top_k, FLAGS.min_p),
        max_new_tokens=FLAGS.max_new_tokens,
        seed=FLAGS.seed,
        stop_strings=FLAGS.stop,
        thinking=FLAGS.thinking,
        batch_size=FLAGS.batch_size,
        dtype=FLAGS.dtype,
    )
    answer, prompts = (answer_file, FLAGS.prompts) if FLAGS.prompt is None else (answer_text, FLAGS.prompt)
    answer(FLAGS.checkpoint, prompts, FLAGS.output, settings, sys.stdout)


if __name__ == "__main__":
    launch.run(main)
