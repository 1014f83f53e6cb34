"""Writes a random checkpoint with the exact names, shapes and dtypes of a released one.

    python -m experiments.make_random_checkpoint --preset=zaya1_8b --output=/tmp/random-8b --shards=4

The 8B takes 17.7 GB of disk, little memory, and as long as the disk needs.
"""

import time

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("preset", "nano", "Architecture: zaya1_8b, zaya1_74b, small or nano.")
flags.DEFINE_string("output", None, "New or empty directory.", required=True)
flags.DEFINE_enum("layout", "native", ["native", "legacy"], "Names of the tensors.")
flags.DEFINE_integer("seed", 0, "Of the values, which are the same in both layouts.")
flags.DEFINE_enum("dtype", "bfloat16", ["bfloat16", "float32"], "Of the tensors.")
flags.DEFINE_integer("shards", 1, "Number of files.", lower_bound=1)
flags.DEFINE_bool("aligned", True, "Data at multiples of 64 bytes; false: as the Hub has it.")
flags.DEFINE_bool("durable", False, "Wait until the disk has everything.")


def main(_):
    from zaya_jax.checkpoint import describe, write_random_checkpoint
    from zaya_jax.errors import mistake
    from zaya_jax.model.config import PRESETS

    if FLAGS.preset not in PRESETS:
        raise mistake("unknown preset", where="--preset", expected=", ".join(PRESETS), found=FLAGS.preset)
    start = time.monotonic()
    write_random_checkpoint(
        FLAGS.output,
        PRESETS[FLAGS.preset](),
        file_layout=FLAGS.layout,
        seed=FLAGS.seed,
        dtype=FLAGS.dtype,
        shards=FLAGS.shards,
        aligned=FLAGS.aligned,
        durable=FLAGS.durable,
    )
    seconds, info = time.monotonic() - start, describe(FLAGS.output)
    rate = f"{info.num_bytes / 1e9:.2f} GB in {seconds:.1f} s ({info.num_bytes / 1e6 / seconds:.0f} MB/s)"
    print(f"{info.num_tensors} tensors, {info.num_parameters:,} parameters, {rate}, {len(info.files)} files")


if __name__ == "__main__":
    launch.run(main)
