"""Draws attempts at problems with a frozen checkpoint, for the prompts of aggregation of a stage of reinforcement learning.

    python -m experiments.make_attempts --checkpoint=out/sft/model --environments=addition,sorting --difficulties=0-3 \\
        --problems=200 --attempts=8 --thinking_budget=112 --answer_budget=28 --tail=48 --output=out/attempts.jsonl

Of problems that may be learnt from alone. The file's schema is in zaya_jax/environments/attempts.py; a stage takes it with
attempts=out/attempts.jsonl behind the colon of its configuration (docs/reinforcement_learning.md).
"""  # noqa: E501

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "A directory, or owner/name of the Hub.", required=True)
flags.DEFINE_list("environments", None, "Specifications (docs/environments.md).", required=True)
flags.DEFINE_string("difficulties", "0", "E.g. 0-4 or 0,2,8; in equal parts.")
flags.DEFINE_integer("problems", 200, "Problems in all.")
flags.DEFINE_integer("attempts", 8, "At each.")
flags.DEFINE_integer("thinking_budget", 16384, "Most tokens of reasoning (beta).")
flags.DEFINE_integer("answer_budget", 8192, "Most tokens of the answer behind it.")
flags.DEFINE_integer("tail", 4096, "Tokens of reasoning that are kept (tau).")
flags.DEFINE_integer("seed", 0, "Another one gives other problems and attempts.")
flags.DEFINE_string("output", None, "A jsonl file.", required=True)
flags.DEFINE_integer("slots", 16, "Attempts drawn together.")
flags.DEFINE_enum("dtype", "bfloat16", ["float32", "bfloat16"], "What the model is computed in.")
flags.DEFINE_integer("workers", 2, "Processes that make and verify problems.", lower_bound=1)
_GIVEN = ("environments", "problems", "attempts", "thinking_budget", "answer_budget", "tail", "seed")


def main(_):
    from zaya_jax.environments.sft import parse_difficulties
    from zaya_jax.evaluation.search_run import Machine
    from zaya_jax.rl.attempts import Making, make_attempts

    given = {name: getattr(FLAGS, name) for name in _GIVEN}
    making = Making(**given, difficulties=parse_difficulties(FLAGS.difficulties))
    machine = Machine(FLAGS.checkpoint, FLAGS.dtype, FLAGS.slots)
    print(make_attempts(machine, making, FLAGS.output, FLAGS.workers))


if __name__ == "__main__":
    launch.run(main)
