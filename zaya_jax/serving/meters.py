"""What the server counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_FINE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5)


class Meters:
    """Counts and times. A registry of its own: a process may hold several servers."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        one = {"registry": self._registry}
        self._http = Counter("zaya_http_requests", "HTTP requests answered.", ["path", "status"], **one)
        self._answers = Counter("zaya_answers", "Answers that have ended, and how.", ["outcome"], **one)
        self._drawn = Counter("zaya_drawn_tokens", "Tokens drawn for answers.", **one)
        self._read = Counter("zaya_read_prompt_tokens", "Tokens of prompts that the model read.", **one)
        self._known = Counter("zaya_known_prompt_tokens", "Tokens of prompts that another prompt began with.", **one)
        self._first = Histogram("zaya_first_token_seconds", "From asking to the first token.", buckets=_SECONDS, **one)
        self._pace = Histogram("zaya_token_seconds", "Per token after the first.", buckets=_FINE_SECONDS, **one)
        self._step = Histogram("zaya_engine_step_seconds", "Of the engine's steps.", buckets=_FINE_SECONDS, **one)
        self._gauges = {
            name: Gauge(f"zaya_{name}", text, **one)
            for name, text in [
                ("slots", "Answers that are drawn together at most."),
                ("slots_used", "Answers being drawn."),
                ("waiting", "Answers that wait for a slot, places reserved by searches included."),
                ("engine_up", "1 while the engine takes requests."),
            ]
        }
        for outcome in ("finished", "cancelled", "failed"):
            self._answers.labels(outcome)
        self._last = (0, 0)

    def leave_out(self, stats: Any) -> None:
        """What an engine has read already is nobody's."""
        self._last = (stats.read_tokens, stats.known_tokens)

    def watch(self, slots: Callable, used: Callable, waiting: Callable, up: Callable) -> None:
        """Says where the gauges are read."""
        for name, read in [("slots", slots), ("slots_used", used), ("waiting", waiting), ("engine_up", up)]:
            self._gauges[name].set_function(read)

    def http(self, path: str, status: int) -> None:
        """A request was answered."""
        self._http.labels(path, str(status)).inc()

    def answered(self, outcome: str) -> None:
        """An answer has ended: finished, cancelled or failed."""
        self._answers.labels(outcome).inc()

    def drawn(self, tokens: int) -> None:
        """Tokens were drawn."""
        self._drawn.inc(tokens)

    def first(self, seconds: float) -> None:
        """An answer's first token came after so long."""
        self._first.observe(seconds)

    def pace(self, seconds: float) -> None:
        """An answer's further tokens took so long each."""
        self._pace.observe(seconds)

    def step(self, seconds: float, stats: Any) -> None:
        """The engine made a step. `stats`: its own, which only grow."""
        self._step.observe(seconds)
        if stats is not None:
            now = (stats.read_tokens, stats.known_tokens)
            self._read.inc(now[0] - self._last[0])
            self._known.inc(now[1] - self._last[1])
            self._last = now

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)
