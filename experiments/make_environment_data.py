"""Makes conversations that teach the native environments: problems with their working, and with attempts at them.

    python -m experiments.make_environment_data --environments=addition,chain --difficulties=0-4 --count=1000 \\
        --part=train --aggregation=0.25 --output=out/train.jsonl

No prompt is there twice, and none of part held_out is in part train, whatever the other flags are.
"""

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_list("environments", [], "Names, e.g. addition,requests; empty: all families.")
flags.DEFINE_string("difficulties", "0", "E.g. 0-4 or 0,2,8; in equal parts.")
flags.DEFINE_integer("count", 1000, "Rows.")
flags.DEFINE_enum("part", "train", ["train", "held_out"], "Which problems.")
flags.DEFINE_integer("seed", 0, "Another seed gives other problems.")
flags.DEFINE_float("aggregation", 0.0, "Share of rows with attempts, of families.")
flags.DEFINE_integer("attempts", 4, "Attempts a prompt (C).")
flags.DEFINE_integer("tail", 48, "Characters of each attempt (tau).")
flags.DEFINE_integer("budget", 96, "Characters of reasoning (beta): longer working is gone on with where attempts end.")
flags.DEFINE_string("wording", "compact", "Of prompts with attempts: a kind of zaya_jax/text/aggregation, or a file.")
flags.DEFINE_string("output", None, "A jsonl file of chats (docs/data.md).", required=True)
_GIVEN = ("count", "part", "seed", "aggregation", "attempts", "tail", "budget", "wording")


def main(_):
    from zaya_jax.environments.families import FAMILIES
    from zaya_jax.environments.sft import Making, make_data, parse_difficulties

    names, difficulties = tuple(FLAGS.environments) or tuple(FAMILIES), parse_difficulties(FLAGS.difficulties)
    making = Making(names, difficulties, **{name: getattr(FLAGS, name) for name in _GIVEN})
    print(make_data(making, FLAGS.output))


if __name__ == "__main__":
    launch.run(main)
