"""Runs to report on, and a strict reader of pages."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

VOID = {"meta", "img", "br", "link", "input", "hr"}


def write_run(directory: Path, records: list[dict]) -> Path:
    """A run's directory with a metrics.jsonl of these records."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return directory


def start(**changes) -> dict:
    """The record of a start."""
    config = {"optimizer": {"name": "muon", "learning_rate": 3e-4}, "data": {"sources": ["a", "b"]}}
    return {
        "kind": "start", "time": 1.78e9, "config": config, "parameters": 8_400_000_000,
        "active_parameters": 760_000_000, "flops_per_token": 5.3e9,
        "devices": 8, "device_kind": "cpu", "mesh": {"data": 2, "fsdp": 4, "expert": 1},
        "resumed_from": None, "rows": 16, "length": 512, "accumulate": 1,
    } | changes  # fmt: skip


def step(number: int, **changes) -> dict:
    """The record of a training step, three layers; the loss falls as 8 / sqrt(step)."""
    return {
        "kind": "train", "step": number, "tokens": 8192 * number, "seconds": 0.5 * number, "loss": 8 * number**-0.5,
        "learning_rate": 1e-3, "gradient_norm": 1.0 + 1 / number, "tokens_per_s": 16384.0, "mfu": 0.25,
        "load_entropy": [0.9, 0.95, 0.99], "max_load": [2.0, 1.5, 1.1], "min_load": [0.1, 0.5, 0.9],
        "skipped": [0.01, 0.02, 0.03], "bad_steps": 0, "step_share": 0.97,
    } | changes  # fmt: skip


def whole_run(steps: int) -> list[dict]:
    """Records of every kind."""
    return [
        start(),
        *(step(number) for number in range(1, steps + 1)),
        {"kind": "eval", "step": steps, "name": "web", "loss": 2.5, "bits_per_byte": 0.875},
        {"kind": "baseline", "step": steps, "name": "web", "order": 5, "bits_per_byte": 1.5},
        {"kind": "sample", "step": steps, "prompt": "Once", "text": " upon a time"},
        {"kind": "spike", "step": steps, "loss": 9.0, "usual": 3.0, "examples": ["web:17", "web:18"]},
        {"kind": "checkpoint", "step": steps, "seconds": 1.25},
        {"kind": "event", "step": steps, "what": "stopped by SIGTERM"},
    ]


class Page(HTMLParser):
    """Reads a page and remembers it; anything that is not well formed is an error.

    Attributes:
        tags: every element as (name, attributes), in order.
        words: what a reader reads.
        scripts: what would run.
    """

    def __init__(self, content: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.words, self.scripts, self._open = [], [], [], []
        self.feed(content)
        self.close()
        assert self._open == [], f"left open: {self._open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"twice the same attribute: {tag} {attrs}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-3:]}"
        self._open.pop()

    def handle_data(self, data):
        {"script": self.scripts, "style": []}.get(self._open[-1] if self._open else "", self.words).append(data)

    @property
    def text(self) -> str:
        """All words with single blanks."""
        return " ".join(" ".join(self.words).split())

    def curves(self) -> dict[str, np.ndarray]:
        """Points [n, 2] of every named curve, in shares of the chart (y from below), by its name."""
        paths = [attributes for tag, attributes in self.tags if tag == "path" and "data-label" in attributes]
        return {attributes["data-label"]: points(attributes["d"]) for attributes in paths}


def points(d: str, size: float = 100_000) -> np.ndarray:
    """The places that a path goes through, [n, 2]: x and y from below, in shares."""
    out = []
    for kind, numbers in re.findall(r"([Mlh])([-\d ]+)", d):
        values = np.array(re.findall(r"-?\d+", numbers), float)
        if kind == "M":
            out.append(values)
        elif kind == "l":
            out += list(out[-1] + np.cumsum(values.reshape(-1, 2), axis=0))
    places = np.array(out).reshape(-1, 2) / size
    return np.stack([places[:, 0], 1 - places[:, 1]], axis=1)


def assert_stands_alone(content: str) -> None:
    """A page that asks for nothing outside of itself."""
    assert "http://" not in content and "https://" not in content and "@import" not in content
    for tag, attributes in Page(content).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")  # places of the page itself
        assert not any(name.startswith("on") for name in attributes)
    for target in re.findall(r"url\(([^)]*)\)", content):
        assert target.startswith("data:")
