"""The CCA kernels in interpret mode, in small tiles that no length is a multiple of, next to their definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_pallas.aot import lowered
from kernels_pallas.cca import cca_mix, reference
from kernels_pallas.cca import kernel as kernels
from kernels_pallas.cca.tiles import Tiles
from kernels_pallas.choose import Unavailable
from tests.kernels.compare import assert_as_exact_as_the_definition, assert_close_in_bfloat16, assert_same_function
from tests.kernels.test_cca import SHAPES, example

TILES = Tiles(rows=16, chunks=3)


def without_angles(mix):
    """The kernels give no gradient to cos and sin; nor may the definition here."""

    def run(u, state, follows, cos, sin, weights):
        return mix(u, state, follows, jax.lax.stop_gradient(cos), jax.lax.stop_gradient(sin), weights)

    return run


DEFINITION = without_angles(reference.cca_mix)
KERNEL = without_angles(functools.partial(kernels.cca_mix, interpret=True, tiles=TILES))


@pytest.mark.parametrize("shape", [*SHAPES.values(), (2, 41, 3, 1, 4, 1)], ids=[*SHAPES, "several tiles"])
def test_same_function(shape, x64):
    assert_same_function(KERNEL, DEFINITION, *example(shape))


@settings(max_examples=15)
@given(st.lists(st.booleans(), min_size=18, max_size=18), st.integers(0, 99))
def test_same_function_wherever_documents_begin(follows, seed):
    """A first token that is said to follow has none to follow."""
    with jax.enable_x64(True):
        arguments, cotangents = example((2, 9, 4, 2, 4, 1), seed)
        arguments["follows"] = np.array(follows).reshape(2, 9)
        assert_same_function(KERNEL, DEFINITION, arguments, cotangents)


@pytest.mark.slow
@settings(max_examples=8)
@given(st.integers(1, 3), st.integers(1, 40), st.sampled_from([(4, 2), (3, 1), (2, 2)]), st.integers(0, 999))
def test_same_function_in_any_shape(batch, length, heads, seed):
    """States, documents that begin anywhere, and no length a tile's; one token a row is another form of the kernel."""
    with jax.enable_x64(True):
        assert_same_function(KERNEL, DEFINITION, *example((batch, length, *heads, 4, 1), seed))


def test_as_exact_as_the_definition():
    assert_as_exact_as_the_definition(KERNEL, DEFINITION, *example((2, 33, 8, 2, 16, 4)), quick=True)


def test_bfloat16():
    """State and angles stay exact, as the model has them."""
    arguments, cotangents = example((2, 33, 8, 2, 16, 4))
    kept = {name: np.float32(arguments[name]) for name in ("state", "cos", "sin")}
    assert_close_in_bfloat16(KERNEL, DEFINITION, arguments, cotangents, also=lambda a: {**a, **kept}, quick=True)


def test_latents_of_zero_have_a_gradient(x64):
    """Of zero norm: below the floor, x * sqrt(H) / floor, and no NaN."""
    arguments, cotangents = example((1, 3, 2, 1, 4, 1))
    zero = jax.tree.map(np.zeros_like, arguments["weights"])
    arguments |= {"u": np.zeros_like(arguments["u"]), "weights": zero._replace(temperature=np.ones(1))}
    assert_same_function(KERNEL, DEFINITION, arguments, cotangents)


def test_odd_widths_are_refused_by_name_when_compiling():
    arguments, _ = example((1, 4, 4, 4, 6, 3))
    with pytest.raises(Unavailable, match=r"cca_mix: .* powers of two from 16 on, found heads of 6"):
        cca_mix(*(jax.tree.map(jnp.asarray, a) for a in arguments.values()), implementation="pallas")


def test_no_step_of_the_mix_reaches_memory():
    """The lowered program of the forward pass is one kernel."""
    arguments, _ = example((1, 64, 4, 2, 64, 16))
    given = tuple(arguments.values())
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, bool if a.dtype == bool else "float32"), given)
    found = lowered((kernels.cca_mix, shapes), "rocm")
    assert [kernel.name for kernel in found] == ["cca_mix"]
