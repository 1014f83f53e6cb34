"""Has a reward model score the answers that `evaluate` has stored.

    python -m experiments.evaluate --checkpoint=out/chat/model --environments=requests --count=100 --n=8 --output=out/answers
    python -m experiments.score_answers --answers=out/answers --reward=out/reward/model

Writes scores.jsonl beside each samples.jsonl (zaya_jax/rl/sample_scores.py) and prints a line of each benchmark.
"""  # noqa: E501

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("answers", None, "An output of evaluate.", required=True)
flags.DEFINE_string("reward", None, "The reward model's directory.", required=True)
flags.DEFINE_integer("length", 512, "Tokens of the longest conversation that is scored.", lower_bound=1)
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "What the reward model is computed in.")


def main(_):
    from zaya_jax.rl.reward_scores import RewardModelConfig
    from zaya_jax.rl.sample_scores import score_answers

    print(score_answers(FLAGS.answers, RewardModelConfig(FLAGS.reward, length=FLAGS.length), FLAGS.dtype))


if __name__ == "__main__":
    launch.run(main)
