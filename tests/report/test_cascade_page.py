"""The page of a cascade that is under way: all stages in a table, their figures, Markovian RSA before and after."""

import json
import re

import pytest

from tests.report.pages import Page, assert_stands_alone, write_run
from tests.report.rl_pages import rl_records, rl_start, write_cascade_run, write_search
from zaya_jax.errors import UserError
from zaya_jax.report.cascade import write_cascade


def page(workdir) -> Page:
    content = write_cascade(workdir).read_text()
    assert_stands_alone(content)
    return Page(content)


def test_every_stage_has_its_line(tmp_path):
    found = page(write_cascade_run(tmp_path / "cascade"))
    for words in (
        "Cascade: cascade",
        "SFT 30 15 s – – – 2.500 nats –",
        "WARMUP 40 1 min 40 s 40,000 0.125 → 0.485 – 0.200 → 0.600 1",
        "RLVE_GYM 12 of 40 30 s 12,000 0.125 → 0.205 – 0.200 → 0.300 1",
        "BEHAVIORAL_CHAT – – – – – – –",
        "python -m x behavioral_chat",
    ):
        assert words in found.text, words
    drawn = {"training loss", "reward", "entropy", "difficulty", "length of an answer", "addition", "mean", "parity"}
    assert drawn <= set(found.curves())
    assert all(title in found.text for title in ("Pass rate by environment", "Staleness", "Routes flipped"))
    links = {attributes["href"] for tag, attributes in found.tags if tag == "a"}
    assert links == {"#sft", "#warmup", "#rlve_gym"}, "what has not begun has no part of its own"
    assert links == {f"#{attributes['id']}" for _, attributes in found.tags if "id" in attributes}


def test_markovian_rsa_before_and_after(tmp_path):
    workdir = write_cascade_run(tmp_path / "cascade")
    assert "Markovian RSA" not in page(workdir).text
    write_search(workdir / "rsa_before" / "addition-2", [[1, 2, 3], [0, 1, 1]])
    write_search(workdir / "rsa_after" / "addition-2", [[4, 4, 4], [0, 2, 3]])
    found = page(workdir).text
    # problems, candidates, right in round 0 and in the last one, majority, tokens: two problems, three rounds of four
    assert "RSA_BEFORE: addition-2 2 24 0.125 0.500 0.500 120" in found
    assert "RSA_AFTER: addition-2 2 24 0.500 0.875 1.000 120" in found


def test_a_search_that_has_only_begun(tmp_path):
    workdir = write_cascade_run(tmp_path / "cascade")
    (workdir / "rsa_before" / "a").mkdir(parents=True)
    (workdir / "rsa_before" / "a" / "settings.json").write_text('{"n": 4, "c": 2, "t": 1}')
    assert "RSA_BEFORE: a 0 0 – – – –" in page(workdir).text


def test_pairs_of_the_reward_model(tmp_path):
    workdir = write_cascade_run(tmp_path / "cascade")
    write_run(workdir / "reward_model", [{"kind": "train", "step": 1, "loss": 0.5}])
    assert "ranked right" not in page(workdir).text
    pairs = {"held_out": {"pairs": 1234, "accuracy": 0.875, "ties": 0.0, "margin": 1.0}}
    (workdir / "reward_model" / "pairs.json").write_text(json.dumps(pairs))
    assert "held_out 1,234 87.5%" in page(workdir).text


@pytest.mark.parametrize("records", [[], [rl_start()], rl_records(1), [{"kind": "step", "step": 1}]])
def test_a_stage_under_way(tmp_path, records):
    workdir = write_cascade_run(tmp_path / "cascade")
    write_run(workdir / "behavioral_chat", records)
    write_run(workdir / "sft", records[:1] if records[:1] == [rl_start()] else [])
    found = page(workdir)
    assert "BEHAVIORAL_CHAT" in found.text and not re.search(r"\b(nan|inf|None)\b", found.text)


def test_nothing_has_begun(tmp_path):
    workdir = tmp_path / "cascade"
    write_cascade_run(tmp_path / "whole")
    workdir.mkdir()
    (workdir / "stages.json").write_text((tmp_path / "whole" / "stages.json").read_text())
    assert "WARMUP – – – – – – –" in page(workdir).text


@pytest.mark.parametrize("content, said", [
    (None, "is not a cascade's directory"),
    ("{", "is not JSON"),
    ("[]", "not a cascade's stages"),
    ('{"schema": 2, "stages": []}', "not a cascade's stages"),
    ('{"schema": 1, "stages": [{"name": "a"}]}', "stage 0: a stage without its field; expected title"),
])  # fmt: skip
def test_mistakes(tmp_path, content, said):
    if content is not None:
        (tmp_path / "stages.json").write_text(content)
    with pytest.raises(UserError, match=said):
        write_cascade(tmp_path)
    assert not (tmp_path / "report.html").exists()
