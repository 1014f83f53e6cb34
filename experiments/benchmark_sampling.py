"""Compares the sampling engine with its own full batches and with transformers' `generate`, on this machine's CPU.

    python -m experiments.benchmark_sampling
    python -m experiments.benchmark_sampling --slots=8 --requests=128 --repeats=3 --output=sampling.json

Answers of 16 to 128 tokens (skewed: most are short), prompts of 16 to 128, 16 times as many requests as slots, with the
random "mid" model of `benchmark_cpu`. `decode` is what the engine draws in a second of decoding while requests wait,
`full` is the same program with all slots busy for long; `host` is the share of decoding in which the device waits. The
whole job is from the first prompt to the last token. transformers takes the requests in batches of as many rows, in
their order, each until its longest answer. Needs the extra `benchmarks`: pip install -e .[benchmarks]
"""

import json
import pathlib
import tempfile

from absl import flags

from experiments import benchmark_requests, launch
from experiments.benchmark_engines import mid_config

FLAGS = flags.FLAGS
flags.DEFINE_list("engines", list(benchmark_requests.ENGINES), f"Of {', '.join(benchmark_requests.ENGINES)}.")
flags.DEFINE_integer("slots", 8, "Rows decoded together.", lower_bound=2)
flags.DEFINE_integer("requests", 128, "How many.", lower_bound=1)
flags.DEFINE_integer("repeats", 3, "Counted repetitions of each, after one warm-up.", lower_bound=1)
flags.DEFINE_integer("threads", 2, "Threads of torch (XLA uses all cores).", lower_bound=1)
flags.DEFINE_string("checkpoint", None, "A checkpoint to use instead of the random mid model.")
flags.DEFINE_string("output", None, "Where the figures go, as JSON.")


def main(_):
    from zaya_jax.checkpoint import write_random_checkpoint

    benchmark_requests.check(FLAGS.engines)
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = FLAGS.checkpoint or f"{directory}/mid"
        if FLAGS.checkpoint is None:
            write_random_checkpoint(checkpoint, mid_config(), dtype="bfloat16")
        job = benchmark_requests.Job(checkpoint, FLAGS.slots, FLAGS.requests, FLAGS.threads)
        results = benchmark_requests.compare(job, FLAGS.engines, FLAGS.repeats)
    print(benchmark_requests.table(results))
    if FLAGS.output:
        pathlib.Path(FLAGS.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    launch.run(main)
