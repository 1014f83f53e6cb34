"""Tables: what they say beside what was published, aligned, escaped; and the report's data itself."""

import pytest

from tests.evaluation.made import run
from zaya_jax.errors import UserError
from zaya_jax.evaluation.presets import PRESETS, TEST_TIME, preset, published
from zaya_jax.evaluation.score import compare, score
from zaya_jax.evaluation.tables import (
    Table,
    attempts_table,
    comparisons_table,
    markdown,
    reported,
    scores_table,
    settings_text,
    signed,
    text,
)
from zaya_jax.sampling.request import Sampling

SETTINGS = {"T": 2, "N": 16, "C": 4, "beta": 40960, "tau": 4096}


def cells(table: Table, row: int = 0) -> dict[str, str]:
    return dict(zip(table.head, table.rows[row]))


def test_a_score_stands_beside_the_report_and_the_model_card():
    one = score(*run({"a": "XXXX", "b": "XXyz", "c": "yyX.", "d": "...."}, benchmark="lcb_v6", generated=12_345))
    assert cells(scores_table([one])) == {
        "benchmark": "LiveCodeBench-v6", "score": "43.8", "± problems": "21.3", "± samples": "9.5", "report": "64.8",
        "model card": "65.8 / 63.8", "difference": "−21.0", "problems": "4", "k": "4", "truncated": "0.0",
        "format": "68.8", "tokens": "12.3k",
    }  # fmt: skip


def test_what_is_not_known_is_a_dash():
    row = cells(scores_table([score(*run({"a": "X"}))]))
    assert (row["± problems"], row["± samples"]) == ("–", "–")
    assert not {"report", "model card", "difference"} & row.keys()


def test_a_population_is_held_against_the_same_settings():
    one = score(*run({"a": "Xx", "b": "XX"}, benchmark="aime25", meta=SETTINGS), "rsa")
    assert reported(one) == 91.9 and cells(scores_table([one]))["difference"] == "−16.9"
    other = score(*run({"a": "Xx"}, benchmark="aime25", meta=SETTINGS | {"tau": 1024}), "rsa")
    assert reported(other) is None
    single = score(*run({"a": "Xx"}, benchmark="aime25"))
    assert reported(single) == 88.3


def test_comparisons_are_corrected_for_all_rows():
    a, b = ({name: score(*run(table, benchmark=name), who) for name in ("aime26", "hmmt26")}
            for who, table in (("a", {"x": "Xy", "y": "yy"}), ("b", {"x": "XX", "y": "Xy"})))  # fmt: skip
    table = comparisons_table([compare(a[name], b[name]) for name in a])
    row = cells(table)
    assert (row["runs"], row["difference"], row["problems"]) == ("b – a", "+50.0", "2")
    assert row["95 % interval"] == "+50.0 to +50.0" and row["p"] == "<0.001" and row["p (Holm)"] == "<0.001"
    assert comparisons_table([]) is None


def test_attempts_are_only_shown_where_there_are_several():
    assert attempts_table([score(*run({"a": "X"}))]) is None
    table = attempts_table([score(*run({"a": "XyXX"}), "r"), score(*run({"a": "Xy"}), "s")])
    assert table.head == ("benchmark", "run", "pass@1", "pass@2", "pass@4", "maj@2", "maj@4")
    assert cells(table, 1)["pass@4"] == "–" and cells(table, 0)["maj@4"] == "100.0"


def test_lines_are_aligned_words_left_and_numbers_right():
    table = Table(("name", "value"), [("β", "1.0"), ("漢字", "−10.0")], 1)
    assert text(table).splitlines() == ["name  value", "────  ─────", "β       1.0", "漢字  −10.0"]


def test_markdown_escapes_what_ends_a_cell():
    table = Table(("name", "value"), [("a|b\\", "1")], 1)
    assert markdown(table).splitlines() == ["| name | value |", "| --- | ---: |", "| a\\|b\\\\ | 1 |"]


def test_small_texts():
    assert (signed(-0.04), signed(0.05), signed(-1.25)) == ("0.0", "+0.1", "−1.2")
    assert settings_text(SETTINGS) == "T=2 N=16 C=4 β=40K τ=4K"
    assert settings_text({"beta": 96}) == "β=96" and settings_text({}) == "single rollout"


def test_the_reports_values_can_be_sampled_with():
    for one in PRESETS.values():
        Sampling(temperature=one.temperature, top_p=one.top_p, top_k=one.top_k)
        assert one.k in (1, 16, 64) and 0 < one.report < 100
        assert one.before_rl is None or one.before_rl < one.report
    assert preset("lcb_v6").temperature == 0.6 and preset("aime26").k == 64
    assert all(name in PRESETS for point in TEST_TIME for name in point.scores)
    assert published({"T": 2, "N": 16, "C": 4, "beta": 16384, "tau": 4096}, "hmmt25") == 87.1
    assert published({}, "aime25") is None


def test_an_unknown_benchmark_gets_a_suggestion():
    with pytest.raises(UserError, match=r"aime_26: the report has no such benchmark; .*did you mean aime26\?"):
        preset("aime_26")
