"""The page of an evaluation: it stands alone and says what the tables say."""

import re

import pytest

from tests.evaluation.made import run
from tests.report.pages import Page, assert_stands_alone
from zaya_jax.evaluation.page import evaluation_page, write_evaluation
from zaya_jax.evaluation.score import compare, score

SETTINGS = {"T": 2, "N": 16, "C": 4, "beta": 16384, "tau": 4096}
HOSTILE = "<script>alert(1)</script>\" onload='x'"


@pytest.fixture
def scores():
    single = score(*run({"p1": "XyXX", "p2": "yyXy"}, benchmark="aime25", generated=15_000), "single")
    rsa = score(*run({"p1": "XXXX", "p2": "yyXX"}, benchmark="aime25", generated=27_500, meta=SETTINGS), "rsa")
    return [single, rsa]


def places(page: str) -> dict[str, tuple[float, float]]:
    """Left and bottom, in per cent, of the signs that say what they are."""
    found = re.findall(r'style="left:([\d.]+)%;bottom:([\d.]+)%" title="([^"]*)"', page)
    return {hint: (float(left), float(bottom)) for left, bottom, hint in found}


def test_the_page_says_what_the_scores_are(scores):
    content = evaluation_page(scores, [compare(*scores)])
    assert_stands_alone(content)
    words = "".join(Page(content).words)
    for expected in ("AIME'25", "88.3", "88.8", "T=2 N=16 C=4 β=16K τ=4K", "rsa – single", "+25.0", "pass@4", "maj@4"):
        assert expected in words, expected


def test_points_lie_where_their_tokens_and_scores_are(scores):
    found = places(evaluation_page(scores))
    single, rsa = (next(place for hint, place in found.items() if hint.startswith(name)) for name in ("single", "rsa"))
    report = next(place for hint, place in found.items() if hint.startswith("report, T=2 N=16 C=4 β=16K"))
    assert single[0] < rsa[0] and single[1] < rsa[1]
    assert rsa[0] == pytest.approx(report[0], abs=0.1)  # 440,000 tokens a problem both
    assert report[1] > rsa[1]  # 88.8 against 75
    assert {"20k", "100k", "500k"} <= set(Page(evaluation_page(scores)).words)  # the axis is logarithmic


def test_strangers_text_stays_text():
    one = score(*run({HOSTILE: "Xy"}, benchmark=HOSTILE), HOSTILE)
    content = evaluation_page([one, score(*run({HOSTILE: "XX"}, benchmark=HOSTILE), "b")])
    assert "<script>alert" not in content and "".join(Page(content).words).count("alert(1)") > 4
    assert_stands_alone(content)


def test_a_single_sample_makes_a_page_too():
    content = evaluation_page([score(*run({"a": "."}, generated=0))])
    assert_stands_alone(content)
    assert "Several attempts" not in content and "Comparisons" not in content


def test_problems_the_runs_differ_on_come_first():
    scores = [score(*run({"same": word, "other": "XX"}), who) for word, who in (("Xy", "a"), ("Xy", "b"))]
    scores.append(score(*run({"same": "Xy", "other": "yy"}), "c"))
    content = evaluation_page(scores)
    assert content.index(">other<") < content.index(">same<")
    many = score(*run({f"q{i}": "X" for i in range(300)}))
    assert "300 problems, 200 of them shown" in "".join(Page(evaluation_page([many])).words)


def test_files(tmp_path, scores):
    output = tmp_path / "new" / "page.html"
    assert write_evaluation(output, scores) == [output] and output.is_file()
    pytest.importorskip("matplotlib", reason="matplotlib (extra `plot`) is not installed")
    files = write_evaluation(output, scores, png=True)
    assert [file.name for file in files] == ["page.html", "page.aime25.png"]
    assert files[1].read_bytes().startswith(b"\x89PNG")
