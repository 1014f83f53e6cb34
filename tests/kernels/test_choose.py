"""Which implementation runs, and what is said where one cannot."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels_pallas import choose as module
from kernels_pallas.cca import cca_mix
from kernels_pallas.choose import IMPLEMENTATIONS, Unavailable, choose
from kernels_pallas.flash_attention import attention
from kernels_pallas.grouped_matmul import grouped_matmul, grouped_swiglu
from tests.kernels.test_attention import example as attention_example
from tests.kernels.test_attention import packed
from tests.kernels.test_cca import example as cca_example

AVAILABLE = {name: name.upper for name in IMPLEMENTATIONS if name != "auto"}


@pytest.mark.parametrize(
    "platform, unmet, expected",
    [("cpu", None, "XLA"), ("tpu", None, "XLA"), ("gpu", None, "PALLAS"), ("gpu", "heads of 96", "XLA")],
)
def test_auto_goes_by_the_platform_and_says_why_once(platform, unmet, expected, monkeypatch, caplog):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    module._say.cache_clear()
    with caplog.at_level(logging.INFO, "kernels_pallas"):
        for _ in range(2):
            assert choose("attention", "auto", AVAILABLE, unmet)() == expected
    (line,) = caplog.messages
    assert line.startswith(f"attention: implementation {expected.lower()!r}: ")
    assert (unmet or platform) in line.replace("GPU", "gpu")


def test_a_choice_that_cannot_be_met_is_named():
    with pytest.raises(Unavailable, match="attention: implementation 'pallas' cannot be met: heads of 96; 'xla'"):
        choose("attention", "pallas", AVAILABLE, "heads of 96")
    assert choose("attention", "xla", AVAILABLE, "heads of 96")() == "XLA"


def arguments(operation):
    if operation is attention:
        return [*attention_example(2, 8, 8, 4, 2, 16)[0].values(), *packed(2, 8).values()]
    if operation is cca_mix:
        return list(cca_example((2, 8, 4, 2, 64, 16))[0].values())
    return [np.ones((4, 3)), np.ones((2, 6, 3)), np.array([1, 2])]


@pytest.mark.parametrize("operation", [attention, cca_mix, grouped_matmul, grouped_swiglu])
def test_kernels_on_a_cpu_are_refused_by_name(operation):
    """Traced they may be, for another platform; compiled not. So is their gradient, and what vmap makes of them."""
    floats = jax.tree.map(lambda a: jnp.asarray(a, "float32" if a.dtype == float else None), arguments(operation))
    run = functools.partial(operation, implementation="pallas")
    batched = jax.vmap(lambda *x: run(*x))
    for function, given in (
        (run, floats),
        (jax.grad(lambda first, *x: sum(leaf.sum() for leaf in jax.tree.leaves(run(first, *x)))), floats),
        (batched, jax.tree.map(lambda a: a[None], floats)),
    ):
        with pytest.raises(ValueError, match="'pallas' runs on a GPU only; elsewhere take 'xla'") as caught:
            jax.jit(function)(*given)
        assert str(caught.value).startswith(operation.__name__)
