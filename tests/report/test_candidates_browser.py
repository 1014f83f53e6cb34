"""The page of a Markovian RSA run in a real browser: lines, keys, sizes, hostile texts, a big run."""

import re

import pytest

from tests.report.chromium import CHROMIUM, Chromium
from tests.report.rsa_example import example
from tests.report.test_candidates import candidate, small
from zaya_jax.report.candidates import candidates_page
from zaya_jax.report.html import write_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed")

HOSTILE = (
    "</script></pre></details><script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
    "<svg onload=document.title='owned'> \x00\x08\x1b[3m \ud800 \u202eevil\u202c שלום عربى 👩‍👩‍👧 ' onfocus='x <!-- ]]>"
)
# Where each line begins and ends, against the middle of the right and left edges of its cards; the largest distance.
STRAY = """Math.max(...[...document.querySelectorAll('.problem[open] path[data-from]')].flatMap((path) => {
  const place = (at) => path.getPointAtLength(at).matrixTransform(path.getScreenCTM());
  const [from, to] = ['from', 'to'].map((end) => document.getElementById(path.dataset[end]).getBoundingClientRect());
  const a = place(0), b = place(path.getTotalLength()), middle = (box) => (box.top + box.bottom) / 2;
  return [a.x - from.right, a.y - middle(from), b.x - to.left, b.y - middle(to)].map(Math.abs);
}))"""


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(window):
    window.errors.clear()
    window.requests.clear()
    window.window(1400, 1000)
    return window


@pytest.fixture
def page(tmp_path):
    return write_page(tmp_path / "page.html", candidates_page(*example()))


def marked(browser, kind):
    """The cards of a kind of kinship, by round and index."""
    return set(browser.ask(f"[...document.querySelectorAll('.{kind}')].map((c) => c.id.slice(3)).filter(Boolean)"))


def kin(number, index):
    """Parents, children and what comes from those, as the records say."""
    drawn = {(c["round"], c["index"]): c["parents"] for c in example()[2] if c["problem"] == "hmmt-square"}
    parents = {f"r{number - 1}-c{i}" for i in drawn[number, index]}
    children = {i for (r, i), read in drawn.items() if r == number + 1 and index in read}
    further = {i for (r, i), read in drawn.items() if r == number + 2 and children & set(read)}
    return parents, {f"r{number + 1}-c{i}" for i in children}, {f"r{number + 2}-c{i}" for i in further}


@pytest.mark.parametrize("width", [1400, 700, 390])
def test_lines_end_at_their_cards(browser, page, width):
    browser.window(width, 900)
    browser.open(page)
    assert browser.ask("document.querySelectorAll('.problem[open] path[data-from]').length") == 2 * 8 * 4
    assert browser.ask(STRAY) < 1.5
    browser.point("#p0-r0-c0 > summary", click=True)  # beside an opened card, too
    assert browser.ask(STRAY) < 1.5


def test_the_page_is_quiet(browser, page):
    browser.open(page)
    for selector in ("#p0-r0-c0 > summary", "#p0-r1-c3 > summary", ".close"):
        browser.point(f"{'#p0-r1-c3 ' if selector == '.close' else ''}{selector}", click=True)
    assert browser.ask("document.documentElement.dataset.script") == "ready"
    assert browser.errors == [] and browser.requests == [page.as_uri()]


def test_pointing_at_a_card_shows_its_kin(browser, page):
    browser.open(page)
    browser.point("#p0-r0-c5 > summary")
    parents, children, further = kin(0, 5)
    assert marked(browser, "self") == {"r0-c5"}
    assert (marked(browser, "parent"), marked(browser, "child"), marked(browser, "descendant")) == (
        parents,
        children,
        further,
    )
    assert browser.ask("document.querySelectorAll('path.near').length") == len(children)
    browser.point("h1")
    assert marked(browser, "self") == set() and browser.ask("document.querySelector('.lit')") is None


def test_everything_by_keyboard(browser, page):
    browser.open(page)
    browser.ask("document.querySelector('.problem > summary').focus()")
    for _ in range(10):
        browser.press("Tab")
        if marked(browser, "self"):
            break
    assert marked(browser, "self") == {"r0-c0"}
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight"):
        browser.press(key)
    parents, children, _ = kin(1, 3)
    assert marked(browser, "self") == {"r1-c3"}
    assert marked(browser, "parent") == parents and marked(browser, "child") == children
    browser.press("Enter")
    shown = "[...document.querySelectorAll('details.candidate[open]')].map((c) => c.id)"
    assert browser.ask(shown) == ["p0-r1-c3"]
    browser.press("ArrowUp")  # turns the page, and leaves one open
    assert browser.ask(shown) == ["p0-r1-c2"] and marked(browser, "self") == {"r1-c2"}
    browser.press("Tab")
    assert browser.ask("document.activeElement.closest('.sheet') !== null")
    browser.press("Escape")
    assert browser.ask(shown) == [] and browser.ask("document.activeElement.parentElement.id") == "p0-r1-c2"
    assert browser.errors == []


def test_a_sheet_shows_the_texts_and_leads_to_the_parents(browser, page):
    browser.open(page)
    browser.point("#p0-r1-c3 > summary", click=True)
    sheet = browser.ask("document.querySelector('#p0-r1-c3 .sheet').innerText")
    thinking = next(c for c in example()[2] if (c["round"], c["index"]) == (1, 3))
    assert "Round 1, candidate #3" in sheet and thinking["answer"] in sheet and thinking["thinking"][-100:] in sheet
    assert browser.ask("document.querySelector('#p0-r1-c3 mark:not(p mark)').innerText") == thinking["tail"].strip()
    first = thinking["parents"][0]
    browser.point("#p0-r1-c3 .kin a", click=True)
    assert browser.ask("document.querySelector('details.candidate[open]').id") == f"p0-r0-c{first}"


def test_the_index_leads_into_a_closed_problem(browser, page):
    browser.open(page)
    browser.point("a[href='#p1']", click=True)
    assert browser.ask("document.querySelectorAll('.problem')[1].open")
    assert abs(browser.ask("document.querySelectorAll('.problem')[1].getBoundingClientRect().top")) < 500


def test_a_phone(browser, page):
    browser.window(390, 844)
    browser.open(page)
    assert browser.ask("document.documentElement.scrollWidth") == 390
    browser.point("#p0-r2-c3 > summary", click=True)
    card, sheet = browser.ask("['#p0-r2-c3 > summary', '#p0-r2-c3 .sheet'].map((s) => document.querySelector(s)"
                              ".getBoundingClientRect().toJSON())")  # fmt: skip
    assert browser.ask("document.documentElement.scrollWidth") == 390
    assert 0 <= card["top"] and card["bottom"] <= sheet["top"] + 1  # the card is seen above its sheet
    assert sheet["left"] == 0 and sheet["width"] == 390


def test_without_its_script(browser, page):
    page.write_text(re.sub(r"<script>.*</script>", "", page.read_text(), flags=re.DOTALL))
    browser.open(page)
    assert browser.ask("document.scripts.length") == 0 and browser.ask(STRAY) < 1.5
    browser.point("#p0-r1-c3 > summary", click=True)
    browser.point("#p0-r1-c4 > summary", click=True)
    assert browser.ask("[...document.querySelectorAll('.candidate[open]')].map((c) => c.id)") == ["p0-r1-c4"]
    assert browser.ask("document.querySelector('#p0-r1-c4 .sheet').getBoundingClientRect().height") == 1000


def test_print_opens_all_problems_and_closes_them_again(browser, page):
    browser.open(page)
    count = "document.querySelectorAll('.problem[open]').length"
    browser.ask("dispatchEvent(new Event('beforeprint'))")
    assert browser.ask(count) == 3
    browser.ask("dispatchEvent(new Event('afterprint'))")
    assert browser.ask(count) == 1


def test_hostile_texts_stay_texts(browser, tmp_path):
    settings, problems, candidates = small()
    words = ("thinking", "answer", "tail", "finish", "extracted")
    candidates = [c | dict.fromkeys(words, HOSTILE) | {"problem": HOSTILE, "probe": {"extracted": HOSTILE + "!"}}
                  for c in candidates]  # fmt: skip
    choice = {"answer": HOSTILE, "votes": 3, "correct": True}
    problems = [{"problem": HOSTILE, "prompt": HOSTILE, "gold": HOSTILE, "majority": choice, "final": choice}]
    settings = settings | dict.fromkeys(("checkpoint", "dtype", "parents", "compaction"), HOSTILE)
    browser.open(write_page(tmp_path / "p.html", candidates_page(settings, problems, candidates)))
    assert browser.ask("document.title").startswith("Markovian RSA: ")
    assert browser.ask("document.querySelectorAll('img, script').length") == 1
    browser.point("#p0-r0-c0 > summary", click=True)
    shown = browser.ask("document.querySelector('#p0-r0-c0 .trace').textContent")
    for words in ("</script></pre></details><script>", "⟨U+202E⟩evil", "👩‍👩‍👧", "␀", "⟨U+D800⟩"):
        assert words in shown, words
    assert browser.ask("document.documentElement.scrollWidth") == 1400
    browser.window(390, 844)
    assert browser.ask("document.documentElement.scrollWidth") == 390
    assert browser.errors == [] and len(browser.requests) == 1


def test_many_rounds_scroll_inside_their_problem(browser, tmp_path):
    candidates = [candidate("p", number, index, str(index % 3), parents=[index] if number else [])
                  for number in range(9) for index in range(16)]  # fmt: skip
    browser.open(write_page(tmp_path / "p.html", candidates_page({"n": 16, "t": 8}, [], candidates)))
    assert browser.ask("document.documentElement.scrollWidth") == 1400 and browser.ask(STRAY) < 1.5
    browser.ask("document.querySelector('#p0-r0-c2 > summary').focus()")
    for _ in range(8):
        browser.press("ArrowRight")
    assert browser.ask("document.querySelector('.self').getBoundingClientRect().right") <= 1400


def test_a_big_run_opens_at_once(browser, tmp_path):
    problems, candidates = [], []
    prose = "Let's see: if x < 3 & y > 2, then \"f(x)\" isn't 0 — so we’d check ∑ again.\n"
    for name in range(30):
        problems.append({"problem": f"p{name}", "prompt": prose * 5, "gold": "3", "mean": 0.5})
        texts = {"thinking": prose * 700, "tail": prose * 200, "answer": prose * 20}
        candidates += [candidate(f"p{name}", number, index, "3") | texts | {"parents": [0, 3, 5, 9] if number else []}
                       for number in range(3) for index in range(16)]  # fmt: skip
    page = write_page(tmp_path / "big.html", candidates_page({"n": 16, "t": 2}, problems, candidates))
    seconds = browser.open(page)
    size = page.stat().st_size
    letters = len(prose) * 700
    print(f"\n{len(candidates)} candidates of {letters:,} characters: {size / 1e6:.1f} MB, open in {seconds:.1f} s")
    assert size < 25_000_000 and seconds < 10
    browser.point("#p0-r1-c3 > summary", click=True)
    assert "characters are left out here" in browser.ask("document.querySelector('#p0-r1-c3 .sheet').innerText")
    assert len(browser.ask("document.querySelector('#p0-r1-c3 .sheet').innerText")) > 5000
    assert marked(browser, "parent") == {"r0-c0", "r0-c3", "r0-c5", "r0-c9"}
