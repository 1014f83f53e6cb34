"""Plots: shapes and places in text, and a PNG that appears whole or not at all."""

import itertools
import sys

import numpy as np
import pytest

from zaya_jax.errors import UserError
from zaya_jax.report.plots import Curve, Panel, bar_chart, save_png, smooth, sparkline, text_plot

FALLING = Panel("bits per byte", [Curve("a", [0, 50, 100], [8, 4, 2])], levels={"zlib": 3.0})


def area(text, width):
    """The cells inside the axes, one string a row."""
    return [line[8 : 8 + width].ljust(width) for line in text.split("\n")[1:-2]]


def is_braille(character):
    return "\u2801" <= character <= "\u28ff"


def test_smooth_is_the_mean_of_the_last_values():
    np.testing.assert_allclose(smooth([1, 3, 8, 0], 2), [1, 2, 5.5, 4])
    np.testing.assert_allclose(smooth([1, 3, 8, 0], 9), [1, 2, 4, 3])


def test_text_plot_has_the_size_asked_for():
    text = text_plot(FALLING, width=40, height=9)
    lines = text.split("\n")
    assert lines[0] == "bits per byte"
    assert len(lines) == 1 + 9 + 2
    assert lines[-2] == "       └" + "─" * 40
    assert lines[-1].split() == ["0", "100"]
    assert all(len(line) <= 8 + 40 + len(" zlib 3.00") for line in lines)


def test_text_plot_falls_from_top_left_to_bottom_right_through_every_column():
    rows = area(text_plot(FALLING, width=40, height=9), 40)
    heights = [[r for r in range(9) if is_braille(rows[r][c])] for c in range(40)]
    assert all(heights)
    assert (min(heights[0]), max(heights[-1])) == (0, 8)
    assert all(max(left) <= max(right) for left, right in itertools.pairwise(heights))


def test_text_plot_names_levels_at_their_height():
    lines = text_plot(FALLING, width=40, height=9).split("\n")
    (place,) = [i for i, line in enumerate(lines) if line.endswith("zlib 3.00")]
    assert "╌" in lines[place]
    assert place - 1 == int((8.24 - 3) / (8.24 - 1.76) * 9)  # the limits are the values with 4% of margin


def test_text_plot_marks_points_where_they_are():
    panel = Panel("y", [Curve("p", [0, 10], [0, 1], points=True)], limits=(0, 1))
    rows = area(text_plot(panel, width=20, height=5), 20)
    assert [(r, c) for r in range(5) for c in range(20) if rows[r][c] == "●"] == [(0, 19), (4, 0)]


def test_text_plot_bears_one_value_and_nan():
    for values in ([3.0], [float("nan")]):
        assert len(text_plot(Panel("y", [Curve("a", [1], values)]), height=4).split("\n")) == 7


def test_bars_are_as_long_as_the_values():
    first, second, third = bar_chart({"this": 4.0, "another": 2.0, "b": 0.25}, width=32).split("\n")
    assert first == "this       4.00  " + "█" * 32
    assert second == "another    2.00  " + "█" * 16
    assert third == "b          0.25  " + "█" * 2


def test_sparkline_has_one_block_a_value():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([2, float("nan"), 4]) == "▁ █"
    assert sparkline([5, 5]) == "▁▁"
    assert sparkline([float("nan")]) == " "


@pytest.fixture
def matplotlib():
    return pytest.importorskip("matplotlib")


def test_png_is_written_whole(tmp_path, matplotlib):
    path = save_png(tmp_path / "new" / "loss.png", [FALLING, FALLING], title="t", x_label="s")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    assert (width, height) == (1200, 900)  # 8 x 6 inches at 150 dots
    assert [file.name for file in path.parent.iterdir()] == ["loss.png"]


@pytest.mark.parametrize("x, whole", [(range(1, 21), True), (np.linspace(1, 20, 20), False)])
def test_steps_have_whole_ticks(tmp_path, matplotlib, monkeypatch, x, whole):
    ticks = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig",
        lambda figure, file, **_: (file.touch(), ticks.extend(figure.axes[-1].get_xticks())),
    )
    save_png(tmp_path / "loss.png", [Panel("loss", [Curve("a", list(x), list(x))])], title="t", x_label="s")
    assert len(ticks) > 2 and all(tick == int(tick) for tick in ticks) == whole


def test_a_failed_png_leaves_the_old_one(tmp_path, matplotlib, monkeypatch):
    path = tmp_path / "loss.png"
    path.write_text("old")

    def fail(self, file, **_):
        file.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(UserError, match="No space left"):
        save_png(path, [FALLING], title="t", x_label="s")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["loss.png"]


def test_missing_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="pip install matplotlib"):
        save_png(tmp_path / "loss.png", [FALLING], title="t", x_label="s")
    assert list(tmp_path.iterdir()) == []
