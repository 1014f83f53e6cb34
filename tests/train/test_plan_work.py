"""FLOPs, exchanges and times of a plan, counted by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train.models import tiny
from zaya_jax.model import PRESETS
from zaya_jax.train import plan_work as pw
from zaya_jax.train.chips import CHIPS, chip_of
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.plan_setup import Setup, Sizes
from zaya_jax.train.plan_time import Shares, time

MODEL = tiny(num_experts=4)
D, V, R, E, F, U, H, L, HEADS = 16, 29, 8, 4, 8, 32, 8, 2, 16
EXPERTS = E * 3 * F * D  # numbers of a layer's experts
ADAMW = OptimizerConfig(name="adamw")


def setup(optimizer=ADAMW, node=None, **more) -> Setup:
    sizes = Sizes(**{axis: more.pop(axis) for axis in Sizes._fields if axis in more})
    devices = math.prod(sizes)
    node = node or devices
    values = {"rows": 8, "length": 12} | more
    return Setup(MODEL, sizes=sizes, optimizer=optimizer, nodes=devices // node, devices_per_node=node, **values)


def sent(s: Setup) -> dict[tuple[str, str, str], float]:
    return {(c.kind, "+".join(c.axes), c.what): c.sent for c in pw.collectives(s)}


@given(st.integers(1, 40), st.integers(1, 50))
def test_keys_that_a_query_sees(length, window):
    model = tiny(layer_types=("sliding", "full"), sliding_window=window)
    ours = [pw.seen_keys(model, kind, length) for kind in ("sliding", "full")]
    assert ours[0] == pytest.approx(np.mean([min(t + 1, window) for t in range(length)]))
    assert ours[1] == pytest.approx(np.mean(np.arange(length) + 1))


def test_flops_of_a_token_by_hand():
    layer = 2 * D + 8 * D + 3 * HEADS * D + 2 * H * D + 2 * U + U + U * H * 2 + U + 2
    layer += R * D + 3 * R + 2 * (R * R + R) + (E + 1) * R + 3 * F * D
    active = L * layer + 3 * D - R  # layer 0's router has no state_scale
    attention = L * 4 * HEADS * 13 / 2
    assert pw.model_flops_per_token(MODEL, 12) == 6 * (active + V * D) + 3 * attention


def test_flops_of_8b_are_the_reports():
    """Report: 0.76B active without the embedding; 6 x 1.29e9 and attention (docs of section 2.1)."""
    model = PRESETS["zaya1_8b"]()
    assert pw.model_flops_per_token(model, 1) == pytest.approx(6 * 1.29e9, rel=0.002)
    assert pw.model_flops_per_token(model, 4096) - pw.model_flops_per_token(model, 1) == pytest.approx(
        12 * 1024 * 40 * 4095 / 2
    )


def test_what_is_recomputed_is_work_but_no_model_flops():
    none, block = (pw.work(setup(remat=remat)) for remat in ("none", "block"))
    tokens, expert = 8 * 12, L * 3 * F * D
    assert none.model == block.model == tokens * pw.model_flops_per_token(MODEL, 12)
    assert block.grouped - none.grouped == 2 * tokens * expert
    assert none.grouped == tokens * (6 + 4 / 3) * expert
    assert block.attention / none.attention == pytest.approx(11 / 9)


def test_the_last_device_of_a_row_sees_most_keys():
    """Of 12 columns on 3 devices the last 4 see 9 to 12 keys, all of them 1 to 12."""
    one, three = pw.work(setup(rows=3)), pw.work(setup(rows=3, context=3))
    exact = np.mean([9, 10, 11, 12]) / np.mean(np.arange(1, 13))
    assert 3 * three.attention / one.attention == pytest.approx(exact, rel=0.05)


def test_newton_schulz_of_every_matrix_by_hand():
    def flops(m, n):
        m, n = sorted((m, n))
        return 5 * (2 * m * m * n + 2 * m**3 + 2 * m * m * n)

    attention = [(HEADS, D)] * 3 + [(H, D)] * 2
    router = [(R, D), (R, R), (R, R), (E + 1, R)]
    layer = sum(flops(*shape) for shape in attention + router) + E * (2 * flops(F, D) + flops(D, F))
    assert pw.newton_schulz(setup(OptimizerConfig(name="muon"))) == L * layer
    assert pw.newton_schulz(setup(OptimizerConfig(name="muon"), data=2)) == L * layer / 2
    alone = layer - E * (2 * flops(F, D) + flops(D, F))  # two layers do not divide by 4, four experts do
    assert pw.newton_schulz(setup(OptimizerConfig(name="muon"), data=4)) == L * (alone + (layer - alone) / 4)
    assert pw.newton_schulz(setup()) == 0


def test_data_sums_all_gradients_and_gathers_updates():
    found = sent(setup(data=2))
    numbers = sum(w.size for w in pw.trained(setup()))
    assert found["all-reduce", "data", "gradients"] == 4 * numbers  # 2 (n - 1) / n of all
    assert 0.45 * 4 * numbers < found["all-gather", "data", "updates"] <= 4 * numbers / 2
    assert found["reduce-scatter", "data", "look-up's gradient"] == 4 * V * D / 2
    plain = sent(setup(OptimizerConfig(name="adamw", zero1=False), data=2, loss_chunk=0))
    assert plain == {("all-reduce", "data", "gradients"): 4 * numbers}


def test_the_lookups_gradient_is_whole_where_fsdp_and_data_share_the_rows():
    assert sent(setup(data=2, fsdp=2))["all-reduce", "data+fsdp", "look-up's gradient"] == 2 * 4 * V * D * 3 / 4
    assert not any(what == "look-up's gradient" for _, _, what in sent(setup(fsdp=2)))


def test_fsdp_gathers_layers_twice_and_scatters_their_gradients():
    found = sent(setup(fsdp=4, loss_chunk=0))
    rest = L * (10 * D + 3 * HEADS * D + 2 * H * D + R * D) + 3 * D
    away = 3 / 4
    assert found["all-gather", "fsdp", "weights"] == away * (2 * 4 * L * EXPERTS + 2 * 2 * rest + 2 * 2 * V * D)
    assert found["reduce-scatter", "fsdp", "gradients"] == away * 4 * (L * EXPERTS + rest + V * D)
    assert found["all-to-all", "fsdp", "embedded tokens"] == away * 2 * (2 * 12) * D * 4
    chunked = sent(setup(fsdp=4))
    assert chunked["reduce-scatter", "fsdp", "gradients"] == away * 4 * (L * EXPERTS + rest)
    assert chunked["all-reduce", "fsdp", "gradients"] > 2 * away * 4 * V * D


def test_microbatches_exchange_gradients_each_and_updates_once():
    one, two = sent(setup(data=2)), sent(setup(data=2, accumulate=2))
    assert two["all-reduce", "data", "gradients"] == 2 * one["all-reduce", "data", "gradients"]
    assert two["all-gather", "data", "updates"] == one["all-gather", "data", "updates"]


def test_muon_exchanges_parts_of_matrices_for_whole_ones_and_back():
    found = sent(setup(OptimizerConfig(name="muon"), fsdp=2))
    matrices = L * (3 * HEADS * D + 2 * H * D + R * D + EXPERTS)
    assert found["all-to-all", "fsdp", "Muon's matrices"] == 2 * 4 * matrices / 2 / 2


def test_tokens_travel_to_their_experts():
    tokens, each = 2 * 12, D * 2
    dense, ragged = (sent(setup(expert=4, dispatch=kind)) for kind in ("dense", "ragged"))
    assert ragged["all-to-all", "expert", "tokens"] == 6 * L * tokens * 3 / 4 * each
    assert dense["all-to-all", "expert", "tokens"] == 6 * L * tokens * 3 * each
    gathered = sent(setup(expert=4))
    assert ("all-to-all", "expert", "tokens") not in gathered
    assert gathered["all-gather", "expert", "weights"] == 3 / 4 * 2 * 4 * L * EXPERTS


def test_context_gathers_keys_and_shifts_a_halo():
    found = sent(setup(context=2, remat="none"))
    keys = 2 * (8 * 12 // 2) * 2 * H  # of a device, both kinds
    assert found["all-gather", "context", "keys and values"] == L * keys * 2
    assert found["reduce-scatter", "context", "their gradients"] == L * keys * 4
    assert found["shift", "context", "halo"] == L * 2 * 8 * (2 * U + H) * 4
    assert sent(setup(context=2))["all-gather", "context", "keys and values"] == 2 * L * keys * 2


@given(
    st.tuples(*[st.sampled_from([1, 2, 4])] * 4), st.sampled_from([1, 2, 4, 8]), st.sets(st.sampled_from(Sizes._fields))
)
def test_devices_of_a_group_that_share_a_node(sizes, node, axes):
    if math.prod(sizes) % node:
        return
    s = Setup(MODEL, 64, 12, Sizes(*sizes), nodes=math.prod(sizes) // node, devices_per_node=node)
    place = {c: i for i, c in enumerate(np.ndindex(*sizes))}
    mine = [i for c, i in place.items() if all(c[k] == 0 or Sizes._fields[k] in axes for k in range(4))]
    assert pw.neighbours(s, tuple(axes)) == (len(mine), sum(i // node == 0 for i in mine))


def test_time_of_an_exchange_by_hand():
    """Two nodes of two: each of a node's rings has a card of its own; all-to-all leaves the node with 2 of 3 parts."""
    shares, chip = Shares(links=1.0), CHIPS["mi300x"]
    s = setup(OptimizerConfig(name="muon"), node=2, fsdp=4)
    seconds = {(c.kind, c.what): (c.sent, t) for c, t in time(s, shares).communication.items()}
    size, taken = seconds["reduce-scatter", "gradients"]
    assert taken == pytest.approx(max(size / chip.link, size / 2 / chip.network))
    size, taken = seconds["all-to-all", "Muon's matrices"]
    assert taken == pytest.approx(max(size / 3 / chip.link, size * 2 / 3 / chip.network))
    near = time(setup(fsdp=4), shares).communication
    assert all(t == pytest.approx(c.sent / chip.link) for c, t in near.items())


def test_a_step_is_the_sum_of_its_work_and_mfu_follows():
    t = time(setup(data=2))
    assert t.step == pytest.approx(sum(t.computing.values()) + sum(t.communication.values()))
    assert t.hidden == pytest.approx(max(sum(t.computing.values()), sum(t.communication.values())))
    assert t.mfu == pytest.approx(48 * pw.model_flops_per_token(MODEL, 12) / (t.step * 1307.4e12))
    assert t.tokens_per_second == pytest.approx(48 / t.step)
    assert t.eta(10) == pytest.approx(10 * t.step)


def test_products_take_their_share_of_the_peak():
    w, t = pw.work(setup()), time(setup(), Shares(dense=0.5, grouped=0.25, attention=0.1, memory=1.0))
    peak = CHIPS["mi300x"].bfloat16
    assert t.computing["dense products"] == pytest.approx(w.dense / peak / 0.5)
    assert t.computing["experts"] == pytest.approx(w.grouped / peak / 0.25)
    assert t.computing["attention"] == pytest.approx(w.attention / peak / 0.1)
    assert t.computing["memory between them"] == pytest.approx(pw.memory_traffic(setup()) / 5.3e12)
    assert "Newton-Schulz in float32" not in t.computing


@pytest.mark.parametrize(
    ("kind", "name"),
    [("AMD Instinct MI300X", "mi300x"), ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H200", "h200"), ("cpu", None)],
)
def test_chips_by_what_jax_calls_them(kind, name):
    found = chip_of(kind)
    assert (found and found.name) == name
