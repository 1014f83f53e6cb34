"""Makes a benchmark file of ours from a published one.

    python -m experiments.convert_benchmark --source=train.parquet --form=matharena --output=aime26.jsonl
    python -m experiments.convert_benchmark --source=gpqa_diamond.csv --form=gpqa --output=gpqa_diamond.jsonl
    python -m experiments.convert_benchmark --source=test6.jsonl --form=livecodebench --since=2025-02-01 \\
        --until=2025-05-31 --output=lcb_v6.jsonl

csv, json, jsonl or parquet; docs/benchmarks.md says where to get each and under which licence.
"""

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
_FORMS = ["matharena", "answerbench", "gpqa", "mmlu_pro", "livecodebench", "ifeval"]
flags.DEFINE_string("source", None, "The published file.", required=True)
flags.DEFINE_enum("form", None, _FORMS, "Whose columns it has; ifeval is IFBench's too.", required=True)
flags.DEFINE_string("output", None, "The benchmark file to write, jsonl.", required=True)
flags.DEFINE_string("since", None, "The first day of the problems to keep, YYYY-MM-DD.")
flags.DEFINE_string("until", None, "The last day.")


def main(_):
    from zaya_jax.environments.convert import convert

    count = convert(FLAGS.source, FLAGS.form, FLAGS.output, FLAGS.since, FLAGS.until)
    print(f"{FLAGS.output}: {count} problems")


if __name__ == "__main__":
    launch.run(main)
