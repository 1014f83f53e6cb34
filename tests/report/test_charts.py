"""Charts: the drawn lines are the values, read off by the axes that the page states."""

import base64
import re
import zlib

import numpy as np
import pytest

from tests.report.pages import Page, assert_stands_alone, points
from zaya_jax.report import html
from zaya_jax.report.axes import Axis
from zaya_jax.report.charts import Chart, Line, Mark, draw
from zaya_jax.report.heat import COLUMNS, heat_map, png


def area(page: Page) -> dict:
    """The attributes of the one drawn area, axes as pairs of numbers."""
    (found,) = [attributes for _, attributes in page.tags if attributes.get("class") == "area"]
    return found | {key: [float(word) for word in found[key].split()] for key in ("data-x", "data-y")}


def read_off(page: Page, label: str) -> np.ndarray:
    """Values [n, 2] of a curve, from its path and the stated axes."""
    places, axes = page.curves()[label], area(page)
    (x0, x1), (y0, y1) = axes["data-x"], axes["data-y"]
    y = y0 * (y1 / y0) ** places[:, 1] if "data-log" in axes else y0 + (y1 - y0) * places[:, 1]
    return np.stack([x0 + (x1 - x0) * places[:, 0], y], axis=1)


@pytest.mark.parametrize("log", [False, True])
def test_a_line_can_be_read_off(log):
    x = np.arange(1, 101.0)
    y = 0.01 + np.exp(np.sin(x / 9))
    content = draw(Chart("Loss", "nats", [Line(0, "loss", x, y)], ["a"], log=log))
    got = read_off(Page(content), "loss")
    np.testing.assert_allclose(got[:, 0], x, atol=1e-3)
    np.testing.assert_allclose(got[:, 1], y, rtol=3e-4)


def test_a_long_line_keeps_its_extremes():
    rng = np.random.default_rng(0)
    y = rng.normal(size=50_000)
    y[31_337], y[777] = 40, -30
    content = draw(Chart("t", "u", [Line(0, "a", np.arange(len(y)), y)], ["a"]))
    got = read_off(Page(content), "a")
    assert len(content) < 40_000
    np.testing.assert_allclose(got[got[:, 1].argmax()], [31_337, 40], atol=1)
    np.testing.assert_allclose(got[got[:, 1].argmin()], [777, -30], atol=1)


def test_gaps_part_a_line_and_a_lonely_value_is_a_dot():
    y = np.array([1, 2, np.nan, 3, np.nan, np.inf, 4, 5])
    content = draw(Chart("t", "u", [Line(0, "a", np.arange(8.0), y)], ["a"]))
    (d,) = [attributes["d"] for tag, attributes in Page(content).tags if attributes.get("data-label") == "a"]
    assert d.count("M") == 3 and d.count("h0") == 1
    assert len(points(d)) == 5


def test_nothing_to_draw_is_said():
    for lines in ([], [Line(0, "a", np.empty(0), np.empty(0))], [Line(0, "a", np.ones(2), np.full(2, np.nan))]):
        assert "Nothing recorded" in Page(draw(Chart("t", "u", lines, ["a"]))).text


def test_marks_are_where_they_belong_and_not_too_many():
    lines = [Line(0, "a", np.array([0.0, 100.0]), np.array([0.0, 10.0]))]
    marks = [Mark(0, 50, 5.0, "▲", "middle"), Mark(0, 50, "top", "▼", "edge"), Mark(0, 50, 1e9, "△", "outside")]
    page = Page(draw(Chart("t", "u", lines, ["a"], marks=marks, y=Axis(0, 10))))
    places = {a["title"]: a["style"] for _, a in page.tags if "title" in a}
    middle, edge = "left:50.00%;bottom:50.00%", "left:50.00%;bottom:100.00%"
    assert places == {"middle": middle, "edge": edge, "outside": edge}
    many = [Mark(0, float(i), "top", "x", f"{i}") for i in range(1000)]
    page = Page(draw(Chart("t", "u", lines, ["a"], marks=many, columns=10)))
    assert len([1 for _, a in page.tags if "title" in a]) == 10


def test_runs_differ_in_colour_and_then_in_dashes():
    lines = [Line(i, f"{i}", np.arange(3.0), np.arange(3.0)) for i in range(20)]
    names = [f"run {i}" for i in range(20)]
    page = Page(draw(Chart("t", "u", lines, names)))
    classes = [a["class"] for tag, a in page.tags if "data-label" in a]
    assert len(set(classes)) == 20
    assert all(name in page.text for name in names)


def test_the_style_sheet_has_every_colour_dash_and_style():
    css = (html.pathlib.Path(html.__file__).with_name("page.css")).read_text()
    screen, print_ = css.split("@media print")
    assert all(f".r{i} {{ stroke: var(--r{i})" in screen for i in range(8))
    assert all(f".r{i}:not(.points, .faint) {{ stroke-dasharray" in print_ for i in range(1, 8))


def test_a_heat_map_holds_its_values_in_colours_and_under_the_pointer():
    x = np.arange(1, COLUMNS + 1.0)
    y_NL = np.stack([np.linspace(0, 1, COLUMNS), np.full(COLUMNS, 0.5), np.full(COLUMNS, np.nan)], axis=1)
    axis = Axis(0.5, COLUMNS + 0.5)
    content = heat_map("Entropy", "1 = even", x, y_NL, x_axis=axis, values=Axis(0, 1))
    assert_stands_alone(content)
    page = Page(content)
    (cells,) = [a for _, a in page.tags if "data-cells" in a]
    codes = np.frombuffer(base64.b64decode(cells["data-cells"]), np.uint8).reshape(3, COLUMNS)
    np.testing.assert_allclose(codes[:2].T / 254, y_NL[:, :2], atol=0.5 / 254)
    assert (codes[2] == 255).all()
    (source,) = [a["src"] for tag, a in page.tags if tag == "img"]
    np.testing.assert_array_equal(read_png(base64.b64decode(source.split(",")[1])), codes)


def read_png(content: bytes) -> np.ndarray:
    """The indices of an unfiltered picture with a palette."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + size]
        assert int.from_bytes(content[at + 8 + size : at + 12 + size], "big") == zlib.crc32(kind + data)
        chunks[kind] = data
        at += 12 + size
    width, height = (int.from_bytes(chunks[b"IHDR"][i : i + 4], "big") for i in (0, 4))
    return np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)[:, 1:]


def test_another_reader_sees_the_same_picture(tmp_path):
    image = pytest.importorskip("PIL.Image")
    index = np.arange(6, dtype=np.uint8).reshape(2, 3) * 50
    (tmp_path / "a.png").write_bytes(png(index))
    with image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), index)
        colors = np.array(picture.getpalette()).reshape(-1, 3)
    lightness = colors[:255] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -0.5).all()  # readable without colours too


def test_grid_and_numbers_stand_at_their_values():
    x = np.array([0.0, 40.0])
    page = Page(draw(Chart("t", "u", [Line(0, "a", x, np.array([0.0, 30.0]))], ["a"], y=Axis(0, 40))))
    spans = {a["style"] for tag, a in page.tags if tag == "span" and "style" in a}
    assert {f"bottom:{place}.00%" for place in (0, 25, 50, 75, 100)} <= spans
    (grid,) = [a["d"] for tag, a in page.tags if a.get("class") == "grid"]
    (x0, x1), (y0, y1) = area(page)["data-x"], area(page)["data-y"]
    rows = [float(down) for down in re.findall(r"M0 (\d+)h", grid)]
    np.testing.assert_allclose([y0 + (y1 - y0) * (1 - row / 1e5) for row in rows], [0, 10, 20, 30, 40], atol=1e-3)
    columns = [float(across) for across in re.findall(r"M(\d+) 0v", grid)]
    np.testing.assert_allclose([x0 + (x1 - x0) * column / 1e5 for column in columns], [0, 10, 20, 30, 40], atol=1e-3)
    numbers = [word for word in page.words if word in ("0", "10", "20", "30", "40")]
    assert numbers == ["0", "10", "20", "30", "40"] * 2
