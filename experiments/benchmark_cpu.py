"""Compares this library with transformers on this machine's CPU: the same weights, side by side.

    python -m experiments.benchmark_cpu
    python -m experiments.benchmark_cpu --tasks=decode_1,decode_8 --repeats=7 --output=cpu.json

A random "mid" model (hidden 1024, 8 layers, 16 experts of 1024, vocabulary 32768) is written as a checkpoint and loaded
by both. Each runs in a process of its own, in turn, one repetition at a time, so that a change of the machine's speed
meets both. The table gives medians in tokens a second, and the ratio of the better precision of each. Needs the extra
`benchmarks`: pip install -e .[benchmarks]
"""

import json
import pathlib
import tempfile

from absl import flags

from experiments import benchmark_engines, launch

FLAGS = flags.FLAGS
flags.DEFINE_list("tasks", list(benchmark_engines.TASKS), f"Of {', '.join(benchmark_engines.TASKS)}.")
flags.DEFINE_list("engines", list(benchmark_engines.ENGINES), f"Of {', '.join(benchmark_engines.ENGINES)}.")
flags.DEFINE_integer("repeats", 5, "Counted repetitions of each, after one warm-up.", lower_bound=1)
flags.DEFINE_integer("threads", 2, "Threads of torch (XLA uses all cores).", lower_bound=1)
flags.DEFINE_string("checkpoint", None, "A checkpoint to use instead of the random mid model.")
flags.DEFINE_string("output", None, "Where the figures go, as JSON.")


def main(_):
    from zaya_jax.checkpoint import write_random_checkpoint

    benchmark_engines.check(FLAGS.tasks, FLAGS.engines)
    results = {}
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = FLAGS.checkpoint or f"{directory}/mid"
        if FLAGS.checkpoint is None:
            write_random_checkpoint(checkpoint, benchmark_engines.mid_config(), dtype="bfloat16")
        for task in FLAGS.tasks:
            results[task] = benchmark_engines.compare(task, FLAGS.engines, checkpoint, FLAGS.repeats, FLAGS.threads)
            print(benchmark_engines.table({task: results[task]}).splitlines()[-1], flush=True)
    print(benchmark_engines.table(results))
    if FLAGS.output:
        pathlib.Path(FLAGS.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    launch.run(main)
