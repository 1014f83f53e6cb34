"""The offsets of an exchange, against moving rows one by one; what XLA gets where it has a ragged all-to-all."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.helpers import FULL, lay_out, small
from zaya_jax.errors import UserError
from zaya_jax.model import Execution, Zaya
from zaya_jax.model.layout import abstract
from zaya_jax.parallel import make_mesh
from zaya_jax.parallel.exchange import best_kind, offsets, received_experts


@st.composite
def counted(draw):
    """Rows that each of X devices has for each of E experts, none of them more than P."""
    X, own, P = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 6))
    experts = st.lists(st.integers(0, X * own - 1), max_size=P)
    rows = [sorted(draw(experts)) for _ in range(X)]
    return rows, np.array([np.bincount(row, minlength=X * own) for row in rows], np.int32), P


def moved(sender, firsts, counts, places, room):
    """What one receiver has: of every sender's rows, `counts` from `firsts` on, put at `places`."""
    received = [None] * room
    for rows, first, count, place in zip(sender, firsts, counts, places, strict=True):
        for i in range(count):
            assert received[place + i] is None
            received[place + i] = rows[first + i]
    return received


@given(counted())
def test_rows_arrive_at_their_owner_and_come_back(case):
    rows, counts_XE, P = case
    X, E = counts_XE.shape
    own = E // X
    counts_XX = counts_XE.reshape(X, X, own).sum(-1)
    every = [jax.tree.map(np.asarray, offsets(counts_XX, me)) for me in range(X)]
    named = [[(device, i, expert) for i, expert in enumerate(row)] for device, row in enumerate(rows)]
    arrived = []
    for me in range(X):
        firsts, places = ([getattr(every[s], name)[me] for s in range(X)] for name in ("first", "there_first"))
        here = moved(named, firsts, every[me].received_count, places, X * P)
        assert sorted(filter(None, here)) == sorted(r for row in named for r in row if r[2] // own == me)
        known = received_experts("ragged", counts_XE[:, me * own : (me + 1) * own], P)
        assert known.tolist() == [-1 if row is None else row[2] % own for row in here]
        arrived.append(here)
    for me in range(X):
        firsts, places = ([getattr(every[s], name)[me] for s in range(X)] for name in ("received_first", "back_first"))
        back = moved(arrived, firsts, every[me].count, places, P)
        assert back == named[me] + [None] * (P - len(named[me]))


@given(counted())
def test_blocks_know_their_experts(case):
    rows, counts_XE, P = case
    X, E = counts_XE.shape
    own = E // X
    for me in range(X):
        mine = [[e % own for e in row if e // own == me] for row in rows]
        expected = [e for block in mine for e in block + [-1] * (P - len(block))]
        assert received_experts("dense", counts_XE[:, me * own : (me + 1) * own], P).tolist() == expected


@pytest.mark.parametrize("platform", ["rocm", "cuda"])
def test_gpus_get_the_ragged_collective(platform):
    # Compiling for several devices needs as many of them; lowering does not.
    mesh = jax.sharding.AbstractMesh((1, 1, 4, 2), ("data", "fsdp", "expert", "context"))
    config = small((FULL,))
    batch = lay_out(config, [[8]] * 4)
    xla = {"attention": "xla", "cca": "xla", "experts": "xla"}
    variables = abstract(config, "stacked", "float32")
    texts = {}
    for dispatch in ("ragged", "dense"):
        model = Zaya(config, Execution("bfloat16", mesh=mesh, dispatch=dispatch, **xla))

        def loss(params, balance, model=model):
            return model.apply({"params": params, "balance": balance}, *batch).logits.sum()

        traced = jax.jit(jax.grad(loss)).trace(variables["params"], variables["balance"])
        texts[dispatch] = traced.lower(lowering_platforms=(platform,)).as_text()
    # There and back, and of the gradient back and there.
    assert texts["ragged"].count("@ragged_all_to_all") == 4
    assert "ragged" not in texts["dense"] and texts["dense"].count("stablehlo.all_to_all") == 4


def test_a_cpu_has_the_dense_one():
    assert best_kind(make_mesh()) == "dense"


def owned_by(owners: int, **execution) -> Execution:
    """With this many owners of experts, if they were there."""
    mesh = jax.sharding.AbstractMesh((1, 1, owners, 1), ("data", "fsdp", "expert", "context"))
    return Execution(mesh=mesh, **execution)


@pytest.mark.parametrize("dispatch", ["auto", "dense", "ragged"])
def test_experts_that_do_not_divide_are_refused(dispatch):
    config = small((FULL,), num_experts=4)
    model, batch = Zaya(config, owned_by(3, dispatch=dispatch)), lay_out(config, [[4]] * 3)
    message = r"mesh axis expert: experts do not divide evenly; expected a divisor of 4 experts; found 3; or .*gather"
    with pytest.raises(UserError, match=message):
        jax.eval_shape(model.apply, abstract(config, "stacked", "float32"), *batch)


def test_unstacked_experts_have_no_owners():
    with pytest.raises(UserError, match=r"Execution\.dispatch: unstacked experts stay whole; .*found 'dense'"):
        Execution(layout="unstacked", dispatch="dense")
    with pytest.raises(UserError, match=r"Execution\.dispatch: unknown choice; .*found 'sparse'"):
        Execution(dispatch="sparse")
