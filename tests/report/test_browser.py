"""The report in a real browser, if there is one: the script runs, and tells what the records say."""

import re
import shutil
import subprocess

import pytest

from tests.report.pages import Page, start, step, whole_run, write_run
from tests.report.rl_pages import rl_records
from zaya_jax.report.rl_page import rl_page
from zaya_jax.report.rl_run import read_rl_run
from zaya_jax.report.runs import read_runs
from zaya_jax.report.training import training_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage")  # fmt: skip

# What a user's pointer and keys would do; the page itself lets no second script run, so that line is taken out.
ACTIONS = """<script>
addEventListener("error", (event) => document.body.append("SCRIPT " + "FAILED: " + event.message));
const areas = [...document.querySelectorAll(".area")];
const point = (area, x, y) => {
  const box = area.getBoundingClientRect();
  const place = {clientX: box.left + x * box.width, clientY: box.top + y * box.height};
  area.dispatchEvent(new PointerEvent("pointermove", place));
};
areas.forEach((area, i) => point(area, i === 1 ? 0 : .5, area.querySelector(".heat") ? .5 : .1));
document.querySelector('li[data-run="1"]').click();
</script>"""


def dom(tmp_path, content: str) -> str:
    """The document as the browser has it when the page is ready."""
    (tmp_path / "page.html").write_text(content)
    command = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1400,3000", "--dump-dom"]
    done = subprocess.run([*command, f"file://{tmp_path / 'page.html'}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def content(tmp_path):
    other = [start(), *(step(i, loss=3.0) for i in range(1, 101))]
    runs = [write_run(tmp_path / "a", whole_run(101)), write_run(tmp_path / "b", other)]
    return training_page(read_runs(runs))


def test_the_page_as_it_is(tmp_path, content):
    found = dom(tmp_path, content)
    assert 'data-script="ready"' in found
    page = Page(found)
    assert page.curves().keys() == Page(content).curves().keys()
    assert all(len(points) for points in page.curves().values())
    assert [a["role"] for tag, a in page.tags if tag == "li" and "data-run" in a].count("button") >= 2


def test_values_under_the_pointer_and_hidden_runs(tmp_path, content):
    content = re.sub(r"<meta http-equiv=[^>]*>", "", content).replace("</body>", ACTIONS + "</body>")
    found = dom(tmp_path, content)
    assert "SCRIPT FAILED" not in found
    tips = re.findall(r'<div class="tip".*?</b>.*?</div></div>', found)
    first = Page(tips[0]).text
    # The middle of the axis is step 51: 8 / sqrt(51) = 1.1202, and 3 in the other run.
    assert (
        "step 51" in first
        and "a, training loss, this step: 1.12" in first
        and "b, training loss, this step: 3" in first
    )
    assert "step 51" in Page(tips[1]).text and "a, training loss: 1.12" in Page(tips[1]).text  # the left end
    assert any(Page(tip).text == "step 51 layer 1: 0.95" for tip in tips)
    page = Page(found)
    hidden = [a for tag, a in page.tags if a.get("data-run") == "1" and tag in ("path", "span")]
    assert hidden and all("display: none" in a["style"] for a in hidden)
    pressed = {a["data-run"]: a["aria-pressed"] for tag, a in page.tags if tag == "li" and "data-run" in a}
    assert pressed == {"0": "true", "1": "false"}


def test_a_legend_hides_what_it_names_in_its_own_part(tmp_path):
    """The second difficulty's colour is that of other curves elsewhere on the page."""
    content = rl_page([read_rl_run(write_run(tmp_path / "a", rl_records()))])
    content = re.sub(r"<meta http-equiv=[^>]*>", "", content).replace("</body>", ACTIONS + "</body>")
    paths = [a for tag, a in Page(dom(tmp_path, content)).tags if tag == "path" and a.get("data-run") == "1"]
    hidden = [a.get("data-label") for a in paths if "display: none" in a.get("style", "")]
    assert {"difficulty 2"} == set(hidden) - {None}  # None: the dots on the line
    shown = {a.get("data-label") for a in paths if "display: none" not in a.get("style", "")}
    assert shown == {"going round in circles", "oldest"}


def test_no_other_script_runs(tmp_path, content):
    found = dom(tmp_path, content.replace("</body>", "<script>document.title = 'changed'</script></body>"))
    assert "<title>Training: 2 runs</title>" in found
