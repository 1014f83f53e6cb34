"""The model in float64 next to the numpy forward pass of `oracle.py`: any shape, padding, packing, skipping."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.model.helpers import (
    ALTERNATING,
    EXACT,
    FULL,
    LAYOUTS,
    SLIDING,
    assert_close,
    compiled,
    lay_out,
    random_tensors,
    random_variables,
    small,
)
from tests.model.oracle import forward
from zaya_jax.model import Execution, Rope

pytestmark = pytest.mark.usefixtures("x64")


def assert_matches_oracle(config, batch, execution=EXACT, seed=0, routes=None):
    """Every document of a batch gets the logits and the routes that the oracle gives to it alone."""
    out = compiled(config, execution)(random_variables(config, execution, seed), *batch, routes=routes)
    logits, taken = np.asarray(out.logits), np.asarray(out.routes_LBT)
    for row, columns in batch.documents():
        given_routes = None if routes is None else routes[:, row, columns]
        expected = forward(config, random_tensors(config, seed), batch.tokens[row, columns], given_routes)
        where = f"row {row}, columns {columns.start}..{columns.stop - 1}: "
        np.testing.assert_array_equal(taken[:, row, columns], expected.routes_LT, err_msg=where)
        assert_close(logits[row, columns], expected.logits_TV, 1e-10, where)
    return out


@st.composite
def configs(draw):
    """Small architectures. Lengths of layer patterns that repeat, and that do not."""
    kv_heads, group = draw(st.sampled_from([(1, 4), (2, 1), (2, 4), (2, 8), (4, 2)]))
    head_dim, fraction = draw(st.sampled_from([(4, 0.5), (8, 0.25), (8, 0.5), (6, 1.0), (16, 0.5)]))
    return small(
        draw(st.sampled_from([(FULL,), (FULL, FULL), ALTERNATING, (FULL, SLIDING, SLIDING), (SLIDING, SLIDING)])),
        num_kv_heads=kv_heads,
        num_query_heads=kv_heads * group,
        head_dim=head_dim,
        full_rope=Rope(1e3, fraction),
        sliding_rope=Rope(1e2, fraction),
        num_experts=draw(st.sampled_from([1, 3, 8])),
        hidden_size=draw(st.sampled_from([16, 24])),
        expert_hidden_size=draw(st.sampled_from([8, 20])),
        router_hidden_size=draw(st.sampled_from([8, 12])),
        sliding_window=draw(st.sampled_from([1, 2, 4])),
        norm_epsilon=draw(st.sampled_from([1e-5, 1e-2])),
        skip_output=draw(st.sampled_from(["zero", "identity"])),
    )


LENGTHS = st.lists(st.integers(1, 19), min_size=1, max_size=3)


@example(small((FULL, FULL), num_query_heads=16), [17, 1], "stacked", 0)
@example(small((FULL, FULL), num_query_heads=8), [1], "stacked", 0)
@example(small((SLIDING, FULL), num_query_heads=4, num_kv_heads=4), [13, 6], "unstacked", 0)
@settings(max_examples=3)
@given(configs(), LENGTHS, st.sampled_from(LAYOUTS), st.integers(0, 9))
def test_any_architecture(config, lengths, layout, seed):
    compare_rows(config, lengths, layout, seed)


@pytest.mark.slow
@settings(max_examples=20)
@given(configs(), LENGTHS, st.sampled_from(LAYOUTS), st.integers(0, 9))
def test_many_architectures(config, lengths, layout, seed):
    compare_rows(config, lengths, layout, seed)


def compare_rows(config, lengths, layout, seed):
    rows = [[-(index % 3), length] for index, length in enumerate(lengths)]
    assert_matches_oracle(config, lay_out(config, rows, seed), Execution(dtype="float64", layout=layout), seed)


@given(st.data())
def test_documents_next_to_strangers(data):
    """Packed in one row, with padding before, between and behind, each document is as if alone."""
    config, width = small(), 24

    def row():
        lengths = data.draw(st.lists(st.integers(-3, 11).filter(bool), min_size=1, max_size=7))
        fitting = [lengths[i] for i in range(len(lengths)) if sum(map(abs, lengths[: i + 1])) <= width]
        return [*fitting, -(width - sum(map(abs, fitting)))]

    assert_matches_oracle(config, lay_out(config, [row(), row()], data.draw(st.integers(0, 5))))


@functools.cache
def batches():
    """One document alone, and the same one padded in three ways."""
    alone = lay_out(small(), [[9, -6]])
    rows = [[9, -6], [-6, 9], [-2, 9, -4]]
    padded = lay_out(small(), rows, seed=1)
    for row, columns in padded.documents():
        padded.tokens[row, columns] = alone.tokens[0, :9]
    return alone, padded


def test_padding_on_either_side_changes_nothing():
    config = small()
    alone, padded = batches()
    call, variables = compiled(config), random_variables(config)
    expected, found = (jax.tree.map(np.asarray, call(variables, *batch)) for batch in (alone, padded))
    for row, columns in padded.documents():
        assert_close(found.logits[row, columns], expected.logits[0, :9], 1e-12)
        np.testing.assert_array_equal(found.routes_LBT[:, row, columns], expected.routes_LBT[:, 0, :9])
    assert (np.asarray(found.routes_LBT)[:, ~padded.real] == -1).all()


def test_what_pads_hold_changes_nothing():
    config = small()
    batch = lay_out(config, [[3, -2, 6, -4], [-5, 7, -3], [15]])
    other = lay_out(config, [[3, -2, 6, -4], [-5, 7, -3], [15]], seed=7)
    mixed = dataclasses.replace(
        batch,
        tokens=np.where(batch.real, batch.tokens, other.tokens),
        positions=np.where(batch.real, batch.positions, other.positions),
    )
    assert (mixed.tokens != batch.tokens).any()
    call, variables = compiled(config), random_variables(config)
    one, two = (jax.tree.map(np.asarray, call(variables, *rows)) for rows in (batch, mixed))
    np.testing.assert_array_equal(one.logits[batch.real], two.logits[batch.real])
    np.testing.assert_array_equal(one.router_counts_LC, two.router_counts_LC)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("skip_output", ["zero", "identity"])
def test_skipped_tokens(skip_output, layout):
    """Half of the choices are sent to the skip class: its output is zero, or the input times its probability."""
    config = small((FULL, SLIDING), skip_output=skip_output)
    batch = lay_out(config, [[11], [-4, 7]])
    routes = np.random.RandomState(0).choice([0, 3, 4, 4], (2, *batch.tokens.shape)).astype(np.int8)
    out = assert_matches_oracle(config, batch, Execution(dtype="float64", layout=layout), routes=routes)
    skipped = ((routes == 4) & batch.real).sum((1, 2))
    np.testing.assert_array_equal(np.asarray(out.router_counts_LC)[:, -1], skipped)


def test_the_skip_class_is_chosen_by_the_router_itself():
    """Otherwise the tests above would compare nothing but experts."""
    config = small()
    batch = lay_out(config, [[40]] * 3)
    counts = np.asarray(assert_matches_oracle(config, batch).router_counts_LC)
    assert (counts[:, -1] > 0).any() and (np.count_nonzero(counts, axis=1) >= 3).all()
