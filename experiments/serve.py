"""Serves a checkpoint over HTTP, to the clients of OpenAI's API.

    python -m experiments.serve --checkpoint=DIR --port=8000

    curl http://127.0.0.1:8000/v1/chat/completions -H "Content-Type: application/json" \\
        -d '{"messages": [{"role": "user", "content": "What is 2 + 2?"}]}'

It listens on this machine alone unless --host says otherwise. SIGTERM and Ctrl-C let running answers end. What is
supported is in docs/serving.md.
"""

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "Directory of a checkpoint, or owner/name of the Hub.", required=True)
flags.DEFINE_string("host", "127.0.0.1", "The address to listen on; 0.0.0.0 for all.")
flags.DEFINE_integer("port", 8000, "The port; 0 takes a free one.", lower_bound=0, upper_bound=65535)
flags.DEFINE_string("name", None, "The model's name for clients (the checkpoint's last part).")
flags.DEFINE_string("api_key", None, "A file that holds the key clients must show; or set ZAYA_API_KEY.")
flags.DEFINE_integer("slots", 8, "Answers drawn together.", lower_bound=2)
flags.DEFINE_integer("context", 8192, "Most tokens of a prompt and its answer.", lower_bound=16)
flags.DEFINE_integer("queue", 64, "Answers that may wait for a slot; more are told to come later.", lower_bound=0)
flags.DEFINE_float("grace", 30.0, "Seconds that running answers have when told to stop.", lower_bound=0)
flags.DEFINE_integer("chunk", 256, "Tokens of a prompt read at a time.", lower_bound=16)
flags.DEFINE_integer("burst", 8, "Tokens drawn between two looks at who came and who left.", lower_bound=1)
flags.DEFINE_float("temperature", 1.0, "Of requests that do not say; 0 is greedy.")
flags.DEFINE_float("top_p", 0.95, "Of requests that do not say; 1 is off.")
flags.DEFINE_enum("dtype", "bfloat16", ["float32", "bfloat16"], "What the model is computed in.")
flags.DEFINE_bool("warm_up", True, "Compile the usual programs before listening.")
_OPTIONS = ("checkpoint", "host", "port", "name", "api_key", "slots", "context", "queue", "grace", "chunk", "burst",
            "temperature", "top_p", "dtype", "warm_up")  # fmt: skip


def main(_):
    from zaya_jax.serving.server import Options, serve

    serve(Options(**{name: getattr(FLAGS, name) for name in _OPTIONS}))


if __name__ == "__main__":
    launch.run(main)
