"""Searches problems with Markovian RSA and shows what every round did.

    python -m experiments.markovian_rsa --checkpoint=DIR --problems=problems.jsonl --n=16 --c=4 --t=2 \\
        --beta=16384 --tau=4096 --output=out/rsa --html

    python -m experiments.markovian_rsa --checkpoint=DIR --environments=addition --difficulties=2 --count=50 \\
        --wording=compact --beta=112 --tau=48 --answer_budget=28 --output=out/rsa_addition

Round 0 draws n candidates; each of t rounds more draws n, prompted with the last tau reasoning tokens of c of the round
before. Problems are a benchmark file (docs/benchmarks.md), or held-out ones of task families. Candidates are written to
--output one by one, and the same command goes on with an interrupted run. docs/markovian_rsa.md explains the settings.
"""

from absl import flags

from experiments import launch
from experiments.search_flags import define, families, machine, wanted

FLAGS = flags.FLAGS
define()
flags.DEFINE_string("problems", None, "A jsonl file of problems.")


def main(_):
    from zaya_jax.evaluation.evaluate import evaluate

    print(
        evaluate(
            machine(),
            [FLAGS.problems] if FLAGS.problems else [],
            wanted("markovian_rsa"),
            FLAGS.output,
            families=families(),
            wording=FLAGS.wording,
            prompts=FLAGS.prompts,
            html=FLAGS.html,
            workers=FLAGS.workers,
            allow_unisolated=FLAGS.allow_unisolated,
        )
    )


if __name__ == "__main__":
    launch.run(main)
