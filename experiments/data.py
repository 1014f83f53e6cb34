"""Checks data files, and shows what they are to a model: windows of whole examples, and what of them is learnt.

    python -m experiments.data --validate=chats.jsonl
    python -m experiments.data --source=chats.jsonl --tokenizer=DIR --length=4096 --show=1
    python -m experiments.data --source=held_out --kind=python_library --length=1024

A file, a directory or a glob; docs/data.md has the formats. With --validate: what is in it, or its first ten mistakes
as "FILE, line N: ..." and exit code 2.
"""

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
_KINDS = ["", "text", "jsonl", "chat", "preference", "parquet", "python_library", "sums", "made_preferences"]
flags.DEFINE_string("validate", None, "What to check.")
flags.DEFINE_string("source", None, "What to show as windows.")
flags.DEFINE_enum("kind", "", _KINDS, "Of the data; empty: as the first file looks.")
flags.DEFINE_string("tokenizer", "bytes", "Directory of a checkpoint, or bytes.")
flags.DEFINE_integer("length", 4096, "Tokens in a window.", lower_bound=2)
flags.DEFINE_string("too_long", "", "What happens to longer examples: split, trim, drop or error; empty: by the kind.")
flags.DEFINE_string("text_field", "text", "Key of the text in a record.")
flags.DEFINE_integer("show", 0, "Rows to show as text.", lower_bound=0)


def main(_):
    from zaya_jax.data.commands import check, preview
    from zaya_jax.data.sources import SourceConfig
    from zaya_jax.data.validate import guess_kind
    from zaya_jax.errors import mistake

    if (FLAGS.validate is None) == (FLAGS.source is None):
        raise mistake("not one job", expected="--validate=FILE or --source=FILE", fix="--help shows examples")
    if FLAGS.validate is not None:
        check(FLAGS.validate, FLAGS.kind, FLAGS.text_field)
        return
    kind = FLAGS.kind or guess_kind(FLAGS.source)
    source = SourceConfig("data", kind, FLAGS.source, too_long=FLAGS.too_long, text_field=FLAGS.text_field)
    preview(source, FLAGS.tokenizer, FLAGS.length, FLAGS.show)


if __name__ == "__main__":
    launch.run(main)
