"""Keeps the problems of a file that a policy solves neither too often nor too seldom.

    python -m experiments.evaluate --checkpoint=DIR --benchmark=maths.jsonl --n=16 --output=out
    python -m experiments.filter_problems --problems=maths.jsonl --rates=out/maths/grades.jsonl --at_most=0.75 \\
        --at_least=0.0 --output=maths_left.jsonl

Pass rates are those of the grades that `evaluate` stores; both ends of the range stay. Lines are written as they are. A
problem without samples is refused by name.
"""

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("problems", None, "A jsonl file of problems, with an id each.", required=True)
flags.DEFINE_string("rates", None, "Its grades.jsonl, or the samples.jsonl that it lies beside.", required=True)
flags.DEFINE_string("output", None, "The file to write.", required=True)
flags.DEFINE_float("at_most", 0.75, "The highest pass rate that stays.", lower_bound=0, upper_bound=1)
flags.DEFINE_float("at_least", 0.0, "The lowest pass rate that stays.", lower_bound=0, upper_bound=1)


def main(_):
    from zaya_jax.rl.pass_rates import filter_file

    print(filter_file(FLAGS.problems, FLAGS.rates, FLAGS.output, FLAGS.at_most, FLAGS.at_least))


if __name__ == "__main__":
    launch.run(main)
