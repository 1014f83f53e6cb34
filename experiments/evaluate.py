"""Samples benchmarks with a checkpoint and scores the answers.

    python -m experiments.evaluate --checkpoint=DIR --benchmark=aime25.jsonl --preset=report --output=out/aime
    python -m experiments.evaluate --checkpoint=DIR --benchmark=aime25.jsonl --method=markovian_rsa --output=out/rsa
    python -m experiments.evaluate --checkpoint=DIR --environments=addition,sorting --difficulties=0,2 --output=out/f

Methods: single answers; rsa, which carries whole reasonings; markovian_rsa, which carries their last --tau tokens;
delethink, chains of --t + 1 chunks. Benchmark files: docs/benchmarks.md; of task families held-out problems. An
interrupted run goes on where it was; --grade_only grades stored samples anew. `experiments.compare` compares runs.
"""

from absl import flags

from experiments import launch
from experiments.search_flags import define, families, machine, wanted

FLAGS = flags.FLAGS
define()
flags.DEFINE_multi_string("benchmark", [], "A benchmark file; may be given again.")
flags.DEFINE_enum("method", "single", ["single", "rsa", "markovian_rsa", "delethink"], "How problems are answered.")
flags.DEFINE_enum("preset", None, ["report"], "Sampling and samples a problem as the report has them.")
flags.DEFINE_integer("limit", None, "Only the first problems of each benchmark.", lower_bound=1)
flags.DEFINE_integer("choices_seed", 0, "Of the order of options in multiple choice.", lower_bound=0)
flags.DEFINE_bool("grade_only", False, "Grade what is stored; sample nothing.")
flags.DEFINE_enum("style", "text", ["text", "markdown"], "Of the table.")


def main(_):
    from zaya_jax.evaluation.evaluate import evaluate, grade_again

    common = {name: getattr(FLAGS, name) for name in ("choices_seed", "style", "workers", "allow_unisolated")}
    if FLAGS.grade_only:
        print(grade_again(FLAGS.output, FLAGS.benchmark, **common))
        return
    print(
        evaluate(
            machine(),
            FLAGS.benchmark,
            wanted(FLAGS.method, FLAGS.preset),
            FLAGS.output,
            families=families(),
            wording=FLAGS.wording,
            prompts=FLAGS.prompts,
            limit=FLAGS.limit,
            html=FLAGS.html,
            **common,
        )
    )


if __name__ == "__main__":
    launch.run(main)
