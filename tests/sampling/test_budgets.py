"""Budgets of reasoning: the device's bookkeeping against a plain reading of the rules."""

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sampling.rules import rules
from zaya_jax.sampling import decode
from zaya_jax.sampling.reasoning import thinking_end
from zaya_jax.sampling.request import Request, Sampling

START, END, EOS, WORDS, V = 1, 2, 3, (4, 5), 6
STEPS = 10

budgets = st.one_of(st.none(), st.integers(0, 4))


def _sensible(case):
    """A request for nothing at all is refused."""
    _, opened, thinking_budget, answer_budget, _, force = case
    return not (opened and thinking_budget == 0 and (not force or answer_budget == 0))


cases = st.tuples(
    st.lists(st.sampled_from([START, END, EOS, *WORDS, *WORDS, *WORDS]), min_size=STEPS, max_size=STEPS),
    st.booleans(),
    budgets,
    budgets,
    st.integers(1, STEPS),
    st.booleans(),
).filter(_sensible)


@jax.jit
def drive(batch, wanted_BN):
    """Draws with logits that leave no choice but the wanted tokens."""
    logits_NBV = 50.0 * jax.nn.one_hot(wanted_BN.T, V)
    routes_LB = np.zeros((1, 2), np.int8)
    state, first = decode.first_token(batch, np.ones(2, np.int32), logits_NBV[0], routes_LB)
    columns = [jax.tree.map(lambda x: x[..., 0], first)]
    for logits_BV in logits_NBV[1:]:
        state, column = decode.draw(batch, state, logits_BV, routes_LB)
        columns.append(column)
    return state, [column.token_BN for column in columns]


@settings(max_examples=200, deadline=None)
@given(st.tuples(cases, cases))
def test_the_device_keeps_the_rules(rows):
    requests = [
        Request(
            "r",
            (9, START) if opened else (9,),
            sampling=Sampling(0.0),
            max_new_tokens=limit,
            stop_ids=(EOS,),
            think_ids=(START, END),
            thinking_budget=thinking_budget,
            force_end=force,
            answer_budget=answer_budget,
        )
        for _, opened, thinking_budget, answer_budget, limit, force in rows
    ]
    state, columns = drive(decode.make_batch(requests), np.array([row[0] for row in rows], np.int32))
    for b, row in enumerate(rows):
        drawn, finish = rules(requests[b], row[0])
        assert int(state.finish_B[b]) == finish
        assert int(state.step_B[b]) == len(drawn)
        assert [int(column[b]) for column in columns[: len(drawn)]] == drawn


def test_where_reasoning_ends():
    request = Request("r", (9, START), think_ids=(START, END), thinking_budget=2, max_new_tokens=9)
    assert thinking_end(request, [4, END, 5]) == (1, False)
    assert thinking_end(request, [4, 5, END, 5]) == (2, True)
    assert thinking_end(request, [4, 5]) == (-1, False)
    assert thinking_end(request, [END, 5, START, 4, END]) == (4, False)
    assert thinking_end(Request("r", (9,), max_new_tokens=9), [4, END]) == (-1, False)
