"""Every mesh computes what one device does: loss, logits, routes and every gradient in float64, to 1e-10."""

import pytest

from tests.parallel.composed import run

PAIRS = [
    {"data": 2, "fsdp": 4},
    {"data": 4, "context": 2},
    {"fsdp": 2, "context": 4},
    *(
        {**pair, "dispatch": dispatch}
        for pair in ({"data": 2, "expert": 4}, {"fsdp": 2, "expert": 4}, {"expert": 2, "context": 4})
        for dispatch in ("gather", "dense")
    ),
]


@pytest.mark.parametrize(
    "meshes, layers",
    [
        ([{"fsdp": 8}, {"expert": 8, "dispatch": "gather"}], "(FULL,)"),
        ([{"context": 8}, {"fsdp": 2, "expert": 2, "context": 2}], "(SLIDING, FULL)"),
        # Less than what others have: rows over `data` and experts at their owners are in the replay below as well.
        pytest.param([{"data": 8}, {"expert": 8}], "(SLIDING, FULL)", marks=pytest.mark.slow),
    ],
    ids=["rows", "columns and owners", "all data or all owners"],
)
def test_each_axis_and_three_at_once(root, monkeypatch, meshes, layers):
    run(root, monkeypatch, f"compare({meshes}, {layers})")


def test_kernels_in_chunks_and_at_owners(root, monkeypatch):
    # Documents end before, at and behind the edge of a chunk of 7 tokens.
    meshes, rows = [{"context": 2, "expert": 2}], [[9, -2, 3], [6, 1, 1, -6]]
    kernels = "INTERPRET | {'remat': 'block'}"
    run(root, monkeypatch, f"compare({meshes}, (SLIDING,), {kernels}, {rows}, num_experts=4)")


def test_prefill_and_decoding(root, monkeypatch):
    run(root, monkeypatch, "remember({'fsdp': 2, 'expert': 2, 'context': 2})")


@pytest.mark.slow
@pytest.mark.parametrize("mesh", PAIRS, ids=str)
def test_pairs_of_axes(root, monkeypatch, mesh):
    run(root, monkeypatch, f"compare([{mesh}])")


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [{"context": 4}, {"expert": 4, "context": 2}], ids=str)
@pytest.mark.parametrize("remat", ["none", "dots"])
def test_kernels_of_both_kinds_of_layers(root, monkeypatch, mesh, remat):
    rows, kernels = [[9, -2, 5], [6, 1, 1, -4, 4], [7, 9], [-3, 13]], f"INTERPRET | {{'remat': '{remat}'}}"
    run(root, monkeypatch, f"compare([{mesh}], (SLIDING, FULL), {kernels}, {rows}, num_experts=4)")


def test_replayed_routes_and_skipped_tokens(root, monkeypatch):
    """Routes that one device took in float64, mixed with live ones and others, replayed in chunks and at owners."""
    run(root, monkeypatch, "replay({'data': 2, 'expert': 2, 'context': 2})")


def test_ragged_exchange(root, monkeypatch):
    """With a collective that does what `ragged_all_to_all` is documented to do, which XLA:CPU lacks."""
    run(root, monkeypatch, "ragged({'expert': 4, 'context': 2})")


def test_nothing_else_moves_along_the_columns(root, monkeypatch):
    """The halo, keys, values and their segments; no activation is gathered. Of gradients, sums."""
    run(root, monkeypatch, "moved_in_chunks({'data': 2, 'context': 4})")


@pytest.mark.slow
def test_float32_stays_within_its_noise(root, monkeypatch):
    run(
        root, monkeypatch, "noise([{'data': 8}, {'context': 8}, {'expert': 8}, {'fsdp': 2, 'expert': 2, 'context': 2}])"
    )
