"""Pages of reinforcement learning: numbers as they were recorded, and a page of whatever there is."""

import re

import numpy as np
import pytest

from tests.report.pages import Page, assert_stands_alone, start, step, whole_run, write_run
from tests.report.rl_pages import FAMILIES, look, rl_records, rl_start, rl_step
from zaya_jax.errors import UserError
from zaya_jax.report.reports import write_report
from zaya_jax.report.rl_page import rl_page
from zaya_jax.report.rl_run import is_rl_run, read_rl_run, shown


def page(tmp_path, *runs: list[dict]) -> Page:
    content = rl_page([read_rl_run(write_run(tmp_path / f"run{i}", records)) for i, records in enumerate(runs)])
    assert_stands_alone(content)
    return Page(content)


def test_columns_are_as_recorded(tmp_path):
    run = read_rl_run(write_run(tmp_path / "a", rl_records()))
    np.testing.assert_array_equal(run.steps["step"], np.arange(1, 41))
    np.testing.assert_allclose(run.steps["reward"], 0.1 + np.arange(1, 41) / 100)
    np.testing.assert_array_equal(run.environments["sorting"]["difficulty"], np.arange(1, 41) // 10)
    known = np.isfinite(run.environments["addition"]["pass_rate"])
    np.testing.assert_array_equal(known, np.arange(1, 41) % 3 != 0)
    assert np.flatnonzero(np.isfinite(run.steps["parity_kl"])).tolist() == [9, 19, 29, 39]
    np.testing.assert_array_equal(run.looks["sorting", 2]["step"], [0, 10, 20, 30, 40])
    steps, held_out = run.held_out()
    np.testing.assert_allclose(held_out, 0.2 + steps / 100)  # the mean of difficulties 0 and 2


def test_figures_equal_the_records(tmp_path):
    found = page(tmp_path, rl_records())
    for words in (
        "steps 40 time",
        "time in steps 1 min 40 s",  # 40 times 2.5 s
        "tokens drawn 40,000",
        "reward 0.125 → 0.485",  # means of 4 steps at either end
        "held out 0.200 → 0.600",
        "answer length 62.5 → 98.5 tokens",
        "routes flipped 12 of 4,000",  # four comparisons of 3 in 1000
        "largest K3 (parity) 3e-6",
        "Warnings: 1",
        "55% of responses were cut off",
        "addition 2 0.100 0.500 +0.400 0.300 0.700",
        "16 problems of each, 4 answers to a problem",
    ):
        assert words in found.text, words


def test_curves_go_through_the_records(tmp_path):
    curves = page(tmp_path, rl_records()).curves()
    reward = curves["reward, this step"]
    rise = np.diff(reward[:, 1])
    np.testing.assert_allclose(rise, rise[0], atol=1e-4)
    assert rise[0] > 0 and len(reward) == 40
    # The last environment's curve of that name: places 2 * step // 10 on an axis up to 8.48.
    np.testing.assert_allclose(curves["difficulty"][-1, 1], 8 / 8.48, atol=1e-3)
    np.testing.assert_allclose(curves["held out"][:, 1], (np.array([0.2, 0.3, 0.4, 0.5, 0.6]) + 0.04) / 1.08, atol=1e-3)
    # On an axis of equal shares: with a pass rate of 1/2 everywhere, the middle.
    np.testing.assert_allclose(curves[f"{shown(FAMILIES[2])}, this step"][:, 1], 0.5, atol=1e-3)


def test_a_pipelined_run_has_drift_and_staleness(tmp_path):
    drift = {"tokens": 10, "max_delta": 0.5, "kl": 2e-3, "pearson": 0.99, "route_flips": 5, "routes": 50}
    stale = {"mean": 0.5, "max": 2}
    equal = {3: drift | {"kl": 1e-3}}  # of a look
    steps = [rl_step(i, parity=equal.get(i), drift=drift, staleness=stale) for i in range(1, 9)]
    found = page(tmp_path, [rl_start(), *steps])
    assert "largest K3 (drift) 0.002" in found.text and "largest K3 (parity) 0.001" in found.text
    assert "most stale 2 updates" in found.text
    assert {"mean", "oldest"} <= set(found.curves())
    assert "most stale 0 updates" in page(tmp_path, rl_records()).text, "in step, and said to be"


def test_scores_are_drawn_where_there_are_some(tmp_path):
    scores = {"mean": 1.5, "std": 0.5, "none": 0.0, "gated": 0.25, "outranked": 3}
    found = page(tmp_path, [rl_start(), *(rl_step(i, scores=scores) for i in range(1, 9))])
    assert "score 1.500 → 1.500" in found.text and {"mean score", "gated answers"} <= set(found.curves())
    assert "Gated" not in page(tmp_path, rl_records()).text


def test_one_look_is_no_change(tmp_path):
    found = page(tmp_path, [rl_start(), look(0), *(rl_step(i) for i in range(1, 4))])
    assert "held out 0.300 answer" in found.text and "addition 0 0.300 – – 0.500 –" in found.text


def test_several_runs(tmp_path):
    found = page(tmp_path, rl_records(), rl_records(12))
    assert "All runs" in found.text and "run0 40 1 min 40 s" in found.text and "run1 12 of 40 30 s" in found.text


@pytest.mark.parametrize(
    "records",
    [
        [],
        [rl_start()],
        [rl_start(config=None)],
        [look(0)],
        [rl_step(1)],
        [{"kind": "step", "step": 1}],
        [rl_start(), {"kind": "step", "step": 1, "environments": None, "parity": None}, {"kind": "step", "step": 2}],
        [rl_step(i, reward=None, environments={}, entropy=None, groups=0, taught=0) for i in (1, 2, 3)],
        [look(0, average=None), {"kind": "look", "step": 4, "difficulty": 0}],
        [{"kind": "warning"}, {"kind": "start_difficulty"}, {"kind": "of tomorrow"}],
        [rl_step(1, parity={"kl": 0.0, "pearson": None, "route_flips": 0, "routes": 0})],
    ],
)
def test_whatever_is_missing_there_is_a_page(tmp_path, records):
    found = page(tmp_path, records)
    assert not re.search(r"\b(nan|inf)\b", found.text)
    for _, attributes in found.tags:
        assert not re.search(r"nan|inf\b", " ".join(str(attributes.get(key)) for key in ("d", "style", "data-y")))


HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def test_hostile_words_stay_words(tmp_path):
    records = [rl_start(config={HOSTILE: HOSTILE}), look(0, HOSTILE), {"kind": "warning", "step": 1, "text": HOSTILE},
               rl_step(1, environments={HOSTILE: {"difficulty": 1, "pass_rate": 0.5, "groups": 1}})]  # fmt: skip
    found = page(tmp_path, records)
    assert len(found.scripts) == 1 and "alert(" not in found.scripts[0]
    assert all(tag != "img" for tag, _ in found.tags)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (rl_step(2, reward="high"), "line 3: reward is not a number; found 'high'"),
        (rl_step(2, parity=[1]), "line 3: parity is not an object"),
        (rl_step(2, seconds={"whole": True}), "line 3: seconds.whole is not a number"),
        (rl_step(2, environments={"a": 3}), "line 3: a is not an object"),
        (rl_step(1), "line 3: steps out of order; expected more than 1; found 1"),
        ({"kind": "step"}, "line 3: step without a number"),
        ({"kind": "look", "difficulty": 0}, "line 3: look without a step"),
    ],
)
def test_damage_is_named_by_line(tmp_path, record, message):
    write_run(tmp_path, [rl_start(), rl_step(1), record])
    with pytest.raises(UserError, match=message):
        read_rl_run(tmp_path)


def test_the_report_knows_what_runs_are_of(tmp_path):
    learnt, trained = write_run(tmp_path / "a", rl_records()), write_run(tmp_path / "b", whole_run(30))
    assert is_rl_run(learnt) and not is_rl_run(trained) and not is_rl_run(write_run(tmp_path / "c", []))
    assert not is_rl_run(write_run(tmp_path / "d", [start(), step(1)]))
    (file,) = write_report([learnt], tmp_path / "out" / "r.html")
    assert "Reinforcement learning: a" in file.read_text()
    assert "Training: b" in write_report([trained], tmp_path / "out" / "t.html")[0].read_text()
    with pytest.raises(UserError, match=r"/b: runs of training and of reinforcement learning"):
        write_report([learnt, trained], tmp_path / "out" / "x.html")
    with pytest.raises(UserError, match="no pictures"):
        write_report([learnt], tmp_path / "out" / "x.html", png=True)


@pytest.mark.parametrize("name, said", [
    ("addition", "addition"),
    ("file:/a/b/math.jsonl", "file:math"),
    ("attempts:out/x.jsonl?wording=compact", "attempts:x"),
    ("rlve:Sorting@../RLVE", "rlve:Sorting@RLVE"),
    ("my.tasks:make", "my.tasks:make"),
])  # fmt: skip
def test_names(name, said):
    assert shown(name) == said
