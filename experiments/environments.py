"""Shows problems of an environment, or checks one's own.

    python -m experiments.environments                                   # what there is
    python -m experiments.environments --environment=addition --difficulty=3 --count=5 --seed=0 --answers
    python -m experiments.environments --validate=my_package.my_module:make

An environment is a native family, package.module:function, file:PATH.jsonl, verl:PATH.parquet, reasoning_gym:NAME or
rlve:NAME@PATH (docs/environments.md). Its code runs in worker processes with limits, as in training. With --validate: a
table of what was checked, and exit code 2 if the contract is broken.
"""

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("environment", None, "Whose problems to show.")
flags.DEFINE_string("validate", None, "The environment to check.")
flags.DEFINE_integer("difficulty", 0, "Of the problems.", lower_bound=0)
flags.DEFINE_integer("count", 3, "Problems to show.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of the first problem; the others have the next ones.", lower_bound=0)
flags.DEFINE_bool("answers", False, "Show explanations too, and the verdicts on their answers.")
flags.DEFINE_float("seconds", 10.0, "Wall time of a call.")
flags.DEFINE_integer("memory_mb", 2048, "Address space of a worker, in MiB.")


def main(_):
    from zaya_jax.environments.commands import check, list_environments, show
    from zaya_jax.environments.workers import WorkerLimits
    from zaya_jax.errors import mistake

    limits = WorkerLimits(FLAGS.seconds, FLAGS.memory_mb)
    if FLAGS.environment is not None and FLAGS.validate is not None:
        raise mistake("not one job", expected="--environment=NAME or --validate=NAME", fix="--help shows examples")
    if FLAGS.validate is not None:
        check(FLAGS.validate, limits)
    elif FLAGS.environment is not None:
        show(FLAGS.environment, FLAGS.difficulty, FLAGS.count, FLAGS.seed, FLAGS.answers, limits)
    else:
        list_environments()


if __name__ == "__main__":
    launch.run(main)
