"""Writes a checkpoint anew in the layout that another program wants; tokenizer and templates go along.

    python -m experiments.convert --checkpoint=DIR --output=DIR --layout=legacy
    python -m experiments.convert --checkpoint=DIR --output=DIR --layout=native --dtype=float32

native is what transformers reads; legacy is that of the first releases, which some engines still want. There and back
gives the same bits. One matrix at a time is in memory; the output appears when all of it is on the disk.
"""

import time

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "Directory of a checkpoint, or owner/name of the Hub.", required=True)
flags.DEFINE_string("output", None, "New or empty directory.", required=True)
flags.DEFINE_enum("layout", "native", ["native", "legacy"], "Names of the tensors.")
flags.DEFINE_enum("dtype", None, ["bfloat16", "float32"], "Of all tensors but the router biases; by default as it is.")


def main(_):
    from zaya_jax.checkpoint import convert, describe, open_checkpoint, resolve
    from zaya_jax.report.progress import Progress

    start, source = time.monotonic(), open_checkpoint(resolve(FLAGS.checkpoint))
    progress = Progress("convert", 100, "%")

    def show(done, total):
        progress.show(100 * done / total, GB=done / 1e9)

    convert(source.directory, FLAGS.output, FLAGS.layout, FLAGS.dtype, progress=show)
    progress.close()
    seconds, info = time.monotonic() - start, describe(FLAGS.output)
    dtypes = ", ".join(f"{count:,} {dtype}" for dtype, count in info.dtypes.items())
    print(f"{FLAGS.output}: {source.layout} -> {info.layout} layout, {info.num_tensors:,} tensors ({dtypes})")
    print(f"{info.num_bytes / 1e9:.3g} GB in {seconds:.1f} s, {_files(len(info.files))}")


def _files(count):
    return f"{count} file" if count == 1 else f"{count} files"


if __name__ == "__main__":
    launch.run(main)
