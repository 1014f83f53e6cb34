"""Delethink against hand-worked chains, on a model that is a table."""

import dataclasses

import pytest

from tests.sampling.scripted import Scripted
from zaya_jax.errors import UserError
from zaya_jax.sampling.delethink import Chains, Delethink
from zaya_jax.sampling.markovian_rsa import Question
from zaya_jax.sampling.rsa_run import bill, run_searches
from zaya_jax.text.aggregation import Pieces

EOS = 1
QUESTION = Question("p", Pieces((10, 11), ((10, 20), (21,)), prefix=1), stop_ids=(EOS,), think_ids=(2, 3))
SMALL = Delethink(n=2, chunk=6, chunks=3, carry=4, head=1)


def counts(request):
    """Goes on counting from the last token it sees, in hundreds of the chain; chain 1 ends at 107."""
    chain = int(request.id.split("/")[2])
    last = request.tokens[-1]
    start = 100 * (chain + 1) if last == 11 else last + 1
    return [EOS if chain == 1 and token == 207 else token for token in range(start, start + 9)]


def test_chunks_by_hand():
    chains, model = Chains(QUESTION, SMALL, context=20), Scripted(counts)
    complete = list(run_searches(model, [chains]))
    asked = {request.id: request.tokens for request in model.asked}
    assert asked == {
        "p/0/0": (10, 11),
        "p/0/1": (10, 11),
        "p/1/0": (10, 11, 100, 102, 103, 104, 105),
        "p/1/1": (10, 11, 200, 202, 203, 204, 205),
        "p/2/0": (10, 11, 100, 104, 105, 106, 107),
    }
    assert chains.text(0).tolist() == [*range(100, 110)] and len(chains.text(0)) == SMALL.most_tokens
    assert chains.text(1).tolist() == [*range(200, 207), EOS]
    assert chains.done and len(complete) == 5
    assert [(b.generated, b.prefilled, b.carried) for b in bill(chains)] == [(12, 4, 0), (4, 14, 8), (2, 7, 4)]


def test_budget_is_the_papers():
    assert Delethink().most_tokens == 24_576


def test_an_interrupted_chain_goes_on():
    whole = Chains(QUESTION, SMALL, context=20)
    list(run_searches(Scripted(counts), [whole]))
    for known in ([], [(0, 0)], [(0, 0), (1, 0)], [(0, 0), (0, 1), (1, 1)], list(whole.candidates)):
        chains, model = Chains(QUESTION, SMALL, context=20), Scripted(counts)
        done = {key: (whole.candidates[key].completion, None) for key in known}
        list(run_searches(model, [chains], {"p": done}))
        assert {k: c.request for k, c in chains.candidates.items()} == {
            k: c.request for k, c in whole.candidates.items()
        }
        assert len(model.asked) == 5 - len(known)


def test_mistakes():
    with pytest.raises(UserError, match="carry: nothing new fits into a chunk; expected less than chunk = 6; found 6"):
        dataclasses.replace(SMALL, carry=6, head=0)
    with pytest.raises(UserError, match=r"head: head and tail overlap; .*; found 7"):
        dataclasses.replace(SMALL, head=3)
    with pytest.raises(UserError, match="chunks: out of range"):
        dataclasses.replace(SMALL, chunks=0)
    with pytest.raises(UserError, match="problem p: longer than the context; expected at most 8 tokens; found 9"):
        Chains(QUESTION, SMALL, context=8)
