"""Times one answer from a large checkpoint on this CPU, from the start of the process on, beside transformers.

    python -m experiments.make_random_checkpoint --preset=zaya1_8b --output=/tmp/random-8b --shards=4
    python -m experiments.benchmark_checkpoint --checkpoint=/tmp/random-8b

Each engine has a process of its own: import, load, read a prompt, decode greedily in bfloat16. "zaya_jax" begins with
nothing compiled, "zaya_jax again" with its programs on disk. The files are read once before, so that every engine meets
them in memory. Needs the extra `benchmarks`: pip install -e .[benchmarks]
"""

import pathlib

from absl import flags

from experiments import benchmark_answer, launch

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "The checkpoint's directory.", required=True)
flags.DEFINE_list("engines", list(benchmark_answer.ENGINES), f"Of {', '.join(benchmark_answer.ENGINES)}.")
flags.DEFINE_integer("prompt_tokens", 32, "Length of the prompt.", lower_bound=1)
flags.DEFINE_integer("new_tokens", 16, "Tokens decoded behind the first.", lower_bound=2)
flags.DEFINE_integer("repeats", 2, "Answers after the first.", lower_bound=1)


def main(_):
    from zaya_jax.checkpoint import open_checkpoint
    from zaya_jax.report.probes import copy_bandwidth

    checkpoint = open_checkpoint(FLAGS.checkpoint)
    for file in pathlib.Path(FLAGS.checkpoint).glob("*.safetensors"):
        with open(file, "rb", buffering=0) as stream:
            while stream.read(2**26):
                pass
    timings = benchmark_answer.measure(
        FLAGS.checkpoint, FLAGS.engines, FLAGS.prompt_tokens, FLAGS.new_tokens, FLAGS.repeats
    )
    print(benchmark_answer.table(timings))
    read = benchmark_answer.token_bytes(checkpoint.config)
    print(f"\nA token reads {read / 1e9:.2f} GB of weights; a copy reads and writes {copy_bandwidth() / 1e9:.1f} GB/s.")
    for engine, timing in timings.items():
        print(f"{engine}: {read / timing.token / 1e9:.1f} GB/s")


if __name__ == "__main__":
    launch.run(main)
