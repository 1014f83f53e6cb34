"""Scores stored samples, beside what the report found, and compares runs; tables in the terminal, and a page.

    python -m experiments.compare --samples=out/single/samples.jsonl --benchmark=aime26.jsonl
    python -m experiments.compare --samples=out/a/samples.jsonl --samples=out/b/samples.jsonl --output=out/compare.html
    python -m experiments.compare --samples=out/a/samples.jsonl --style=markdown

With --benchmark (again for several) samples of that benchmark are graded, and the grades kept in grades.jsonl beside
them; without it kept grades are used. Every run is compared with the first. docs/benchmarks.md has the formats.
"""

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_multi_string("samples", None, "A file of samples; several to compare them.", required=True)
flags.DEFINE_multi_string("benchmark", [], "A benchmark file to grade by; its name is the benchmark's.")
flags.DEFINE_string("output", None, "A page to write, .html.")
flags.DEFINE_bool("png", False, "Draw the page's charts as PNGs beside it too (extra `plot`).")
flags.DEFINE_enum("style", "text", ["text", "markdown"], "Of the tables printed.")
flags.DEFINE_integer("seed", 0, "Of the bootstrap.", lower_bound=0)
flags.DEFINE_integer("choices_seed", 0, "What options were shuffled with when the prompts were made.", lower_bound=0)
flags.DEFINE_integer("workers", 2, "Answers judged at once.", lower_bound=1)


def main(_):
    from zaya_jax.evaluation.commands import compare_files

    print(
        compare_files(
            FLAGS.samples, FLAGS.benchmark, output=FLAGS.output, png=FLAGS.png, style=FLAGS.style,
            seed=FLAGS.seed, choices_seed=FLAGS.choices_seed, workers=FLAGS.workers,
        )
    )  # fmt: skip


if __name__ == "__main__":
    launch.run(main)
