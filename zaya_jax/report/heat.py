"""Heat maps for a page: a value of every layer over the steps, as a small picture inside the page."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from zaya_jax.report.axes import Axis, short
from zaya_jax.report.charts import frame
from zaya_jax.report.downsample import column_means
from zaya_jax.report.html import Html, tag

COLUMNS = 240
_LEVELS = 255  # of colour; index 255 is left for no value
# Dark blue over green to yellow, of evenly rising lightness and safe for the colour-blind (after viridis, CC0).
_ANCHORS = ((68, 1, 84), (71, 45, 123), (59, 82, 139), (44, 114, 142), (33, 145, 140), (40, 174, 128), (94, 201, 98),
            (173, 220, 48), (253, 231, 37))  # fmt: skip


def heat_map(
    title: str, unit: str, x: np.ndarray, y_NL: np.ndarray, *, x_axis: Axis, values: Axis, x_label: str = "step"
) -> Html:
    """A row a layer, from the first at the top; each column of pixels is the mean of its steps.

    Args:
        x: [N], never decreasing.
        y_NL: a value a layer; NaN stays blank.
        x_axis: common to maps that are to be compared.
        values: from the darkest to the brightest colour, likewise; what lies outside takes the nearest.
    """
    cells_CL = column_means(x, y_NL, COLUMNS, (x_axis.low, x_axis.high))
    place = np.clip(values.place(cells_CL), 0, 1) * (_LEVELS - 1)
    index_LC = np.where(np.isnan(place), _LEVELS, np.rint(np.nan_to_num(place))).astype(np.uint8).T
    layers = len(index_LC)
    picture = tag("img", alt=f"{title}: {unit} of {layers} layers over {x_label}", src=_data_uri(index_LC))
    picture = Html(picture.removesuffix("</img>"))
    map_ = tag("div", picture, class_="heat", style=f"--layers:{layers}", data_cells=_base64(index_LC.tobytes()),
               data_layers=layers, data_values=f"{values.low!r} {values.high!r}")  # fmt: skip
    rows = Axis(layers, 0)
    named = {layer + 0.5: str(layer) for layer in sorted({0, layers // 2, layers - 1})}
    scale = tag("p", short(values.low), tag("i", style=f"background:{_gradient()}"), short(values.high), class_="scale")
    caption = tag("figcaption", tag("h3", title, tag("span", f" {unit}", class_="unit")))
    body = frame([map_], x_axis, rows, x_label, named)
    return tag("figure", caption, body, scale, class_="chart")


def png(index_RC: np.ndarray) -> bytes:
    """A picture of the palette's colours, uint8 [rows, columns]; 255 is transparent."""
    rows, columns = index_RC.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), index_RC], axis=1)  # each line begins with its filter: none
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
        (b"PLTE", _palette().tobytes()),
        (b"tRNS", bytes([255] * _LEVELS + [0])),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _palette() -> np.ndarray:
    """uint8 [256, 3]."""
    places = np.linspace(0, len(_ANCHORS) - 1, _LEVELS)
    colors = np.stack([np.interp(places, range(len(_ANCHORS)), channel) for channel in zip(*_ANCHORS)], axis=1)
    return np.concatenate([np.rint(colors), np.zeros((1, 3))]).astype(np.uint8)


def _gradient() -> str:
    return f"linear-gradient(90deg,{','.join(f'rgb{color}' for color in _ANCHORS)})".replace(" ", "")


def _data_uri(index_RC: np.ndarray) -> str:
    return f"data:image/png;base64,{_base64(png(index_RC))}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
