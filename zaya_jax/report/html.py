"""Pages of one file: a skeleton, sections, tables, facts. Nothing is fetched, and a stranger's text stays text.

A page works without JavaScript, on a phone, in the dark and in print; its own small script (`page.js`) adds the values
under the pointer. Its content security policy lets no other script run and no request leave.

    body = [section("Scores", table(["task", "avg@4"], [["AIME", "0.91"]]))]
    write_page("scores.html", page("Scores", body))
"""

from __future__ import annotations

import base64
import hashlib
import html
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zaya_jax.errors import mistake


class Html(str):
    """Text that is HTML already; whatever else is put on a page is escaped."""


def text(value: Any) -> Html:
    """Anything as it may stand on a page, between tags or in a quoted attribute."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def tag(name: str, *parts: Any, **attributes: Any) -> Html:
    """An element around parts, one after the other: `tag("td", 3, class_="number")`.

    Attributes: a trailing "_" falls away, other "_" become "-"; None leaves one out, True gives it no value.
    """
    given = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    words = [name, *(key if value is True else f'{key}="{text(value)}"' for key, value in given)]
    return Html(f"<{' '.join(words)}>{join(parts)}</{name}>")


def join(parts: Iterable[Any], between: str = "") -> Html:
    """Parts after each other, escaped where they are not HTML."""
    return Html(text(between).join(text(part) for part in parts))


def section(title: str, *parts: Any, note: Any = "") -> Html:
    """A part of a page under a heading; a note says in a sentence or two how to read it."""
    return tag("section", tag("h2", title), tag("p", note, class_="note") if note else "", *parts)


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], *, caption: str = "", kind: str = "") -> Html:
    """A table that scrolls sideways where it is too wide; the first cell of a row is its heading.

    Args:
        head: of the columns.
        rows: as many cells each; numbers come as the text that is to be shown.
        caption: above it.
        kind: a class of page.css: "numbers" aligns cells to the right, "words" lets them break, "list" only the last
            one of a row.
    """
    columns = [tag("th", cell, scope="col") for cell in head]
    lines = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    title = tag("caption", caption) if caption else ""
    whole = tag("table", title, tag("thead", tag("tr", *columns)), tag("tbody", *lines), class_=kind or None)
    return tag("div", whole, class_="scroll", tabindex="0")


def tiles(figures: Mapping[str, Any]) -> Html:
    """A few figures to be seen first, each large above its name."""
    return tag(
        "dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in figures.items()), class_="tiles"
    )


def details(summary: Any, *parts: Any, is_open: bool = False) -> Html:
    """Parts behind a line that opens them."""
    return tag("details", tag("summary", summary), *parts, open=True if is_open else None)


def listing(value: str) -> Html:
    """Text as it is, in a typewriter's letters; long lines break."""
    return tag("pre", value)


def page(title: str, body: Iterable[Any], *, lead: Any = "", kind: str = "") -> str:
    """A whole page.

    Args:
        title: of the window and above everything.
        body: sections.
        lead: a line under the title.
        kind: of a page that needs more: KIND.css is added to page.css, and KIND.js takes the place of page.js.
    """
    script, style = _asset(f"{kind or 'page'}.js"), _asset("page.css") + (_asset(f"{kind}.css") if kind else "")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Styles stand in attributes too: places on charts.
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{text(title)}</h1>{tag("p", lead, class_="lead") if lead else ""}</header>
<main>
{join(body, Html(chr(10)))}
</main>
<script>{script}</script>
</body>
</html>
"""


def write_page(path: pathlib.Path | str, content: str) -> pathlib.Path:
    """Writes a page beside and renames it: it appears whole or not at all.

    Raises:
        UserError: it cannot be written; an older one is left as it is.
    """
    path = pathlib.Path(path)
    beside = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A lone surrogate, which JSON can carry, has no UTF-8.
        beside.write_text(content, encoding="utf-8", errors="replace")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise mistake("cannot be written", where=path, found=error.strerror or error) from error
    return path


def _asset(name: str) -> str:
    return pathlib.Path(__file__).with_name(name).read_text(encoding="utf-8")
