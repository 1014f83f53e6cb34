"""Plans as a whole: what fits, what would make it fit, what is refused, what is printed."""

import dataclasses
import json

import pytest

from tests.experiments import in_process
from tests.train.models import tiny
from zaya_jax.errors import UserError
from zaya_jax.model import PRESETS
from zaya_jax.model.weights import count_parameters
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.plan import CHANGES, MARGIN, plan, remedy
from zaya_jax.train.plan_page import LENGTHS, TOPOLOGIES, page
from zaya_jax.train.plan_setup import Setup, Sizes, automatic_sizes, make_setup, parse_mesh
from zaya_jax.train.plan_text import table

LARGE = PRESETS["zaya1_8b"]()


def large(topology="1x8", length=4096, optimizer=None, **more) -> Setup:
    return make_setup(
        LARGE, topology, length, optimizer=OptimizerConfig(**({"name": "muon"} | (optimizer or {}))), **more
    )


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_8b_fits_mi300x(topology, length):
    found = plan(large(topology, length))
    assert found.fits
    assert found.memory.peak < MARGIN * 192 * 2**30
    assert found.parameters == count_parameters(LARGE) == 8_840_488_784


def test_meshes_as_in_the_report():
    assert automatic_sizes(1, 8, 4096) == Sizes(fsdp=8)
    assert automatic_sizes(128, 8, 32768) == Sizes(data=128, fsdp=4, context=2)
    assert automatic_sizes(128, 8, 131072) == Sizes(data=128, context=8)
    assert automatic_sizes(1, 1, 131072) == Sizes()
    assert [large("128x8", length).rows for length in LENGTHS] == [4096, 512, 128]


REMEDIES = {
    "remat=block": large(rows=64, remat="none", mesh="data=8", optimizer={"name": "adamw"}),
    "loss_chunk=1024": large(rows=64, loss_chunk=0, chip="h100"),
    "zero1": large(optimizer={"name": "adamw", "zero1": False}, mesh="data=8", chip="h200"),
    "accumulate=": large(rows=512, chip="h100"),
    "mesh=data=2,fsdp=2": large("1x4", rows=4, mesh="data=4", chip="h100"),
    "context=": large(length=262144, rows=8, mesh="fsdp=8", chip="h100"),
    "topology=": large("1x2", rows=16, mesh="fsdp=2", accumulate=1, chip="h100", optimizer={"name": "adamw"}),
}


@pytest.mark.parametrize("words", REMEDIES)
def test_the_first_change_of_the_list_that_makes_it_fit(words):
    before = REMEDIES[words]
    assert not plan(before).fits
    found, after = remedy(before)
    assert plan(after).fits
    assert words in found[-1]
    if len(found) == 1:
        alone = [option for change in CHANGES for option in change(before)]
        first = next(i for i, (_, changed) in enumerate(alone) if plan(changed).fits)
        assert alone[first] == (found[0], after)
    assert (after.tokens, after.model, after.optimizer.name) == (before.tokens, before.model, before.optimizer.name)


def test_changes_are_combined_where_none_is_enough():
    before = large(remat="none", loss_chunk=0, rows=128, mesh="data=8", optimizer={"name": "adamw"}, chip="h100")
    found, after = remedy(before)
    assert len(found) > 1
    assert plan(after).fits


def test_what_nothing_helps_is_said():
    assert remedy(large("1x1", rows=1, mesh="data=1", chip="h100")) is None
    assert "none of the 7 kinds of changes makes it fit" in table([plan(large("1x1", rows=1, chip="h100"))])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"sizes": Sizes(fsdp=4)},
            "the mesh does not fit the topology; expected 8 devices (1x8); found fsdp=4, 4 devices",
        ),
        ({"rows": 12}, "rows does not divide evenly; expected a multiple of 8"),
        ({"accumulate": 3}, "rows does not divide evenly; expected a multiple of 24"),
        ({"sizes": Sizes(context=8), "length": 4100}, "length does not divide evenly"),
        ({"sizes": Sizes(expert=8), "dispatch": "dense", "model": tiny()}, "num_experts does not divide evenly"),
        ({"chip": "mi300"}, "chip: unknown chip; expected mi300x, mi325x"),
        ({"remat": "all"}, "remat: unknown choice"),
        ({"accumulate": 0}, "accumulate: out of range"),
        ({"loss_chunk": -1}, "loss_chunk: out of range"),
    ],
)
def test_setups_that_cannot_be(change, words):
    with pytest.raises(UserError) as error:
        dataclasses.replace(large(rows=8), **change)
    assert words in str(error.value)


@pytest.mark.parametrize("text", ["fsdp", "fsdp=0", "fsdp=-2", "fsdp=x", "model=2"])
def test_meshes_that_cannot_be(text):
    with pytest.raises(UserError, match="mesh"):
        parse_mesh(text)


def test_the_page_is_what_the_plans_say(root):
    """To write it anew: python -m experiments.plan --page=docs/plan.md"""
    text = (root / "docs" / "plan.md").read_text(encoding="utf-8")
    assert text == page(root / "docs")


@pytest.mark.parametrize("length", LENGTHS)
def test_the_pages_commands_print_its_tables(root, length):
    text = (root / "docs" / "plan.md").read_text(encoding="utf-8")
    command = next(line for line in text.splitlines() if line.startswith("`python") and f"--length={length}" in line)
    code, out, err = in_process.run("plan", *command.strip("`").split()[3:])
    assert (code, err) == (0, "")
    shown = out.split("\n\nMemory:")[0]
    assert shown in text
    assert max(map(len, out.splitlines())) < 100


def test_json_holds_what_is_printed(tmp_workdir):
    code, out, err = in_process.run("plan", "--topology=1x8,2x8", "--rows=64", "--steps=100", "--json=plan.json")
    assert (code, err) == (0, "")
    one, two = json.loads((tmp_workdir / "plan.json").read_text())
    expected = plan(large(rows=64))
    assert one["memory"]["peak"] == expected.memory.peak
    assert one["time"]["step"] == pytest.approx(expected.time.step)
    assert two["setup"]["sizes"] == {"data": 2, "fsdp": 8, "expert": 1, "context": 1}
    assert f"{expected.time.mfu:.1%}" in out
    assert "100 steps" in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--topology=8"], "topology: no topology; expected NODESxDEVICES, as 128x8; found '8'"),
        (["--model=zaya"], "model: unknown model; expected zaya1_8b"),
        (["--mesh=fsdp=3"], "the mesh does not fit the topology"),
        (["--optimizer=sgd"], "OptimizerConfig.name"),
        (["--length=0"], "length: out of range"),
    ],
)
def test_mistakes_end_in_one_line(flags, words):
    code, out, err = in_process.run("plan", *flags)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
