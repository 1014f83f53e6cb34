"""The training report: every figure from the records, whatever they lack."""

import re
import sys

import numpy as np
import pytest

from tests.report.pages import Page, assert_stands_alone, start, step, whole_run, write_run
from zaya_jax.errors import UserError
from zaya_jax.report.runs import read_runs
from zaya_jax.report.training import training_page, write_report
from zaya_jax.report.training_facts import differences, flat


def pages(tmp_path, **runs):
    """The page of runs, by name."""
    content = training_page(read_runs([write_run(tmp_path / name, records) for name, records in runs.items()]))
    assert_stands_alone(content)
    return Page(content)


def test_a_whole_run(tmp_path):
    page = pages(tmp_path, a=whole_run(300))
    for words in (
        "8.4B (760M at work on a token)",
        "16 rows of 512 tokens",
        "2.46M",  # tokens: 300 x 8192
        "16.4k (median)",
        "25.0 % (median)",
        "MFU = tokens/s × FLOPs/token ÷ (devices × peak FLOP/s of a device)",
        "8 × cpu",
        "data 2, fsdp 4",
        "2 min 30 s",
        "2.5000 nats/token; 0.8750 bits/byte; lowest 2.5000 at step 300",
        "2026-05-28 20:26 UTC",
        "Loss spikes: 1",
        "web:17, web:18",
        "stopped by SIGTERM",
        "Once upon a time",
        "1.25 s",
        "data.sources",
    ):
        assert words in page.text, words
    loss = 8 * np.arange(291, 301) ** -0.5
    assert f"{loss.mean():.4f} nats/token, mean of 10 steps" in page.text
    drawn = {"training loss", "held out (web)", "learning rate", "gradient norm", "mean of layers", "worst layer",
             "throughput", "MFU", "the step's share of the loop"}  # fmt: skip
    assert drawn <= set(page.curves())
    assert {attributes.get("data-layers") for _, attributes in page.tags} == {None, "3"}


def test_runs_side_by_side(tmp_path):
    other = start(config={"optimizer": {"name": "adamw", "learning_rate": 3e-4}, "data": {"sources": ["a", "b"]}})
    page = pages(tmp_path, muon=whole_run(300), adamw=[other, *(step(i) for i in range(1, 101))])
    assert "optimizer.name muon adamw" in page.text
    what_differs = page.text.split("What differs")[1].split("Loss")[0]
    assert "learning_rate" not in what_differs and "sources" not in what_differs
    curves = page.curves()
    longer, shorter = curves["muon, training loss"], curves["adamw, training loss"]
    # In the last chart of that name, over wall clock: a third as long, and where both are, the same.
    assert shorter[:, 0].max() == pytest.approx(longer[:, 0].max() / 3, abs=0.02)
    assert page.text.count("Load entropy by layer: ") == 2


def test_wall_clock_is_in_a_unit_of_its_size(tmp_path):
    hours = [step(i, seconds=3600.0 * i) for i in range(1, 11)]
    page = pages(tmp_path, a=hours, b=whole_run(3))
    (axis,) = [attributes["data-x"] for _, attributes in page.tags if attributes.get("data-across") == "hours"]
    low, high = map(float, axis.split())
    assert low < 1 and 10 <= high < 11


def test_the_same_configurations_are_said_to_be(tmp_path):
    assert "The configurations are the same." in pages(tmp_path, a=whole_run(2), b=whole_run(3)).text


@pytest.mark.parametrize(
    "records",
    [
        [],
        [start()],
        [step(1)],
        [start(), step(1)],
        [step(1), step(2)],
        [{"kind": "train", "step": 1}],
        [start(), step(1, loss=None, gradient_norm=None), step(2, loss=None, gradient_norm=None)],
        [{"kind": "eval", "step": 0, "name": "web", "loss": None, "bits_per_byte": None}],
        [{"kind": kind, "step": 3} for kind in ("eval", "sample", "spike", "checkpoint", "event")],
        [{"kind": "start"}, {"kind": "start", "resumed_from": 4}],
        [step(i, max_load=None, load_entropy=[None, None]) for i in range(1, 90)],
        [step(1, loss=0.0, gradient_norm=0.0, learning_rate=0.0, tokens_per_s=0.0, skipped=[0, 0, 0])],
        [step(1, loss=-1e300), step(2, loss=1e300)],
        [start(time=1e300, config=None, mesh="4x2", rows="x", devices=None)],
    ],
)
def test_whatever_is_missing_there_is_a_page(tmp_path, records):
    page = pages(tmp_path, a=records, b=whole_run(20))
    assert "Key figures" in page.text
    assert not re.search(r"\b(nan|inf|None)\b", page.text)
    for _, attributes in page.tags:
        assert not re.search(r"nan|inf\b", " ".join(str(attributes.get(key)) for key in ("d", "style", "data-y")))
    pages(tmp_path, a=records)


HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def test_hostile_words_stay_words(tmp_path):
    records = [
        start(
            config={HOSTILE: {"x": HOSTILE}, "list": [HOSTILE]}, device_kind=HOSTILE, mesh={HOSTILE: 2}, rows=HOSTILE
        ),
        *(step(i) for i in range(1, 30)),
        {"kind": "eval", "step": 3, "name": HOSTILE, "loss": 1.0},
        {"kind": "sample", "step": 3, "prompt": HOSTILE, "text": HOSTILE},
        {"kind": "spike", "step": 3, "examples": [HOSTILE]},
        {"kind": "event", "step": 3, "what": HOSTILE},
        {"kind": HOSTILE},
    ]
    page = pages(tmp_path, **{"a<b>&": records, "b": whole_run(3)})
    assert len(page.scripts) == 1 and "alert(" not in page.scripts[0]
    assert all(tag != "img" or attributes["src"].startswith("data:") for tag, attributes in page.tags)
    assert page.text.count("<script>alert(1)</script>") >= 8


def test_skipped_updates_and_spikes_are_marked(tmp_path):
    records = [step(i, bad_steps=(i >= 40) + (i >= 70), loss=None if i in (40, 70) else 3.0) for i in range(1, 101)]
    spike = {"kind": "spike", "step": 55, "loss": 4.5, "usual": 3.0, "examples": []}
    page = pages(tmp_path, a=[*records, spike])
    hints = [attributes["title"] for tag, attributes in page.tags if tag == "span" and "title" in attributes]
    assert sorted(set(hints)) == [
        "a: loss 4.500 at step 55, usually 3.000",
        "a: update skipped at step 40",
        "a: update skipped at step 70",
    ]
    assert "updates skipped 2" in page.text


def test_a_hundred_thousand_steps_fit(tmp_path):
    rng = np.random.default_rng(0)
    noise = np.round(rng.normal(size=(100_000, 3)), 4).tolist()
    records = (
        {"kind": "train", "step": i + 1, "seconds": i, "tokens": 100 * i, "loss": 3 + a, "gradient_norm": 2 + abs(b),
         "learning_rate": 1e-3, "tokens_per_s": 100 + c, "mfu": 0.4 + c / 100, "step_share": 0.9,
         "load_entropy": [0.9 + b / 50] * 2, "max_load": [2 + c] * 2, "bad_steps": i // 100}
        for i, (a, b, c) in enumerate(noise)
    )  # fmt: skip
    run = write_run(tmp_path / "long", list(records))
    content = training_page(read_runs([run]))
    assert len(content.encode()) < 700_000
    drawn = Page(content).curves()["training loss, this step"]
    assert (drawn[0, 0], drawn[-1, 0]) == (drawn[:, 0].min(), drawn[:, 0].max())


def test_many_runs_fit(tmp_path):
    rng = np.random.default_rng(0)
    runs = {f"run{i}": [step(j, loss=float(rng.normal())) for j in range(1, 1000)] for i in range(12)}
    content = training_page(read_runs([write_run(tmp_path / name, records) for name, records in runs.items()]))
    assert len(content.encode()) < 1_500_000


def test_files(tmp_path):
    pytest.importorskip("matplotlib")
    run = write_run(tmp_path / "a", whole_run(30))
    files = write_report([run], tmp_path / "out" / "r.html", png=True)
    assert [file.name for file in files] == ["r.html", "r.loss.png", "r.balance.png", "r.speed.png"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(file.name for file in files)
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files[1:])
    for number, records in enumerate(([], [step(1)], [step(1, loss=None), step(2, loss=None)])):
        write_report([write_run(tmp_path / f"b{number}", records)], tmp_path / "other" / "r.html", png=True)


def test_missing_matplotlib_is_one_line_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    run = write_run(tmp_path / "a", whole_run(3))
    with pytest.raises(UserError, match="pip install matplotlib"):
        write_report([run], tmp_path / "out" / "r.html", png=True)
    assert not (tmp_path / "out").exists()


def test_configurations():
    assert dict(flat({"a": {"b": 1, "c": {}}, "d": "x", "e": [1, None]})) == {
        "a.b": "1", "a.c": "{}", "d": "x", "e": "[1, null]",
    }  # fmt: skip


def test_differences_name_what_only_one_has(tmp_path):
    runs = [write_run(tmp_path / name, [start(config=config)]) for name, config in
            (("a", {"x": 1, "y": {"z": True}}), ("b", {"x": 1, "w": "new"}))]  # fmt: skip
    assert differences(read_runs(runs)) == [("y.z", "true", "–"), ("w", "–", "new")]
