"""A program a layer computes what one program of the whole model does."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.model.helpers import ALTERNATING, FULL, SLIDING, assert_close, compiled, lay_out, random_variables, small
from zaya_jax.model import Execution, Zaya, grow_cache, init_cache
from zaya_jax.model.programs import call, one_per_layer

pytestmark = pytest.mark.usefixtures("x64", "quick_programs")

LAYERS = Execution(dtype="float64", layout="unstacked", programs="layer")
WHOLE = dataclasses.replace(LAYERS, programs="whole")


def both(config, *arguments, logits="all"):
    """A call in either way; what is used up is given as copies."""
    variables = random_variables(config, WHOLE)
    expected = compiled(config, WHOLE, logits)(variables, *arguments)
    return call(Zaya(config, LAYERS), variables, *jax.tree.map(lambda x: x.copy(), arguments), logits=logits), expected


LAYER_TYPES = {"one": (FULL,), "two": (FULL, FULL), "alternating": ALTERNATING}
ALWAYS = [("one", "all"), ("one", "last"), ("one", "none"), ("two", "all"), ("alternating", "all")]
SELDOM = [(name, logits) for name in ("two", "alternating") for logits in ("last", "none")]


@pytest.mark.parametrize("name, logits", [*ALWAYS, *(pytest.param(*case, marks=pytest.mark.slow) for case in SELDOM)])
def test_a_program_a_layer_is_the_same_function(name, logits):
    config = small(LAYER_TYPES[name])
    found, expected = both(config, *lay_out(config, [[7, -2, 5], [-3, 11]]), logits=logits)
    assert_close(found, expected)
    np.testing.assert_array_equal(found.routes_LBT, expected.routes_LBT)


def test_routes_are_replayed():
    config = small((FULL, SLIDING))
    batch = lay_out(config, [[12]])
    routes = np.random.RandomState(0).randint(-1, config.num_experts + 1, (2, 1, 12)).astype(np.int8)
    found, expected = both(config, *batch, None, routes)
    assert_close(found, expected)
    np.testing.assert_array_equal(np.where(routes < 0, found.routes_LBT, routes), found.routes_LBT)


def test_a_cache_is_filled_and_continued_in_place():
    config = small((SLIDING, FULL))
    empty = init_cache(config, LAYERS, 2, 0)
    found, expected = both(config, *lay_out(config, [[7, -2], [-3, 6]]), empty)
    assert_close(found, expected)
    cache = grow_cache(config, "unstacked", found.cache, 20)
    place = cache.layers[1].k_BSKH.unsafe_buffer_pointer()
    tokens = np.array([[3], [5]], np.int32)
    arguments = (tokens, np.asarray(cache.length_B)[:, None], np.ones_like(tokens))
    expected = compiled(config, WHOLE)(random_variables(config, WHOLE), *arguments, cache)
    found = call(Zaya(config, LAYERS), random_variables(config, WHOLE), *arguments, cache)
    assert_close(found, expected)
    assert found.cache.layers[1].k_BSKH.unsafe_buffer_pointer() == place


def test_the_number_of_experts_decides():
    unstacked = Execution(layout="unstacked")
    assert not one_per_layer(small(), unstacked)
    assert one_per_layer(small((FULL,) * 40, num_experts=16), unstacked)
    assert not one_per_layer(small((FULL,) * 40, num_experts=16), Execution())
    assert not one_per_layer(small((FULL,) * 40, num_experts=16), dataclasses.replace(unstacked, programs="whole"))


def test_layers_of_a_kind_share_a_program():
    from zaya_jax.model import programs

    config = small((SLIDING, FULL) * 3, hidden_size=48)
    before = programs._block._cache_size()
    call(Zaya(config, LAYERS), random_variables(config, LAYERS), *lay_out(config, [[9]]))
    assert programs._block._cache_size() - before == 2
