"""ZAYA1 in JAX. `zaya_jax.load(path)` gives a model, its variables and its tokenizer."""

__all__ = ["load"]


def __getattr__(name: str):
    # Not imported at once: whoever wants a submodule only, or `--help`, need not wait for jax.
    if name == "load":
        from zaya_jax.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
