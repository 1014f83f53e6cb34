"""Pages: well formed, alone, and strangers' text stays text."""

import base64
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.pages import Page, assert_stands_alone
from zaya_jax.errors import UserError
from zaya_jax.report import html

anything = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=30)
HOSTILE = "</td></table><script>alert(1)</script>\" onload='x' & <!-- ]]>"


def everything(words: str) -> str:
    """A page with these words in every place."""
    body = [
        html.section(words, words, note=words),
        html.table([words, words], [[words, words]], caption=words, kind=words),
        html.tiles({words: words}),
        html.details(words, html.listing(words)),
        html.tag("p", title=words),
    ]
    return html.page(words, body, lead=words)


@given(anything)
def test_words_arrive_as_they_are_whatever_they_are(words):
    page = Page(everything(words))
    assert page.words.count(words) >= 12 or not words.strip()
    assert {"title": words} in [attributes for tag, attributes in page.tags if tag == "p"]
    assert len(page.scripts) == 1


def test_a_page_stands_alone():
    assert_stands_alone(everything("words"))
    assert not re.search(r"<script>alert|onload='x'", everything(HOSTILE))
    assert Page(everything(HOSTILE)).scripts == Page(everything("words")).scripts


def test_no_other_script_would_run():
    page = Page(html.page("t", []))
    (policy,) = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256("".join(page.scripts).encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_ready_html_is_not_escaped_twice():
    inner = html.tag("b", "1 < 2")
    assert (
        html.tag("p", inner, " & ", class_="x", hidden=True, id=None)
        == '<p class="x" hidden><b>1 &lt; 2</b> &amp; </p>'
    )


def test_a_failed_page_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "new" / "page.html"
    html.write_page(path, "old")

    def fail(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(UserError, match="No space left"):
        html.write_page(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_half_a_character_does_not_stop_a_page(tmp_path):
    assert html.write_page(tmp_path / "p.html", html.page("\ud800", [])).exists()
