"""An HTTP endpoint that OpenAI's clients can talk to, over the engine (`sampling.engine`). Needs the extra `serve`."""
