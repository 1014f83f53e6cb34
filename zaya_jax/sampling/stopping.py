"""The text of an answer while its tokens arrive, and the strings that end it."""

from __future__ import annotations

from collections.abc import Sequence

from zaya_jax.text.tokenizer import StreamDecoder, Tokenizer


class AnswerText:
    """Decodes an answer token by token, up to the first of its stop strings.

    Special tokens have no text. A stop string may begin and end anywhere in a token; where several match, the one that
    begins first counts. What may still turn out to be the beginning of one is held back.

    Attributes:
        text: what is decoded so far; when a stop string has been met, what stands before it.
        stopped: whether one has been met.
    """

    def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str] = ()):
        self.text = ""
        self.stopped = False
        self._decoder = StreamDecoder(tokenizer)
        self._stop_strings = tuple(stop_strings)
        self._longest = max(map(len, self._stop_strings), default=0)
        self._shown = 0

    def push(self, token: int) -> bool:
        """Takes a token; returns whether the answer ends with it."""
        return self._append(self._decoder.push(token))

    def flush(self) -> bool:
        """Takes the answer's end, which makes certain what the decoder still holds; returns as `push`."""
        return self._append(self._decoder.flush())

    def release(self, final: bool = False) -> str:
        """What has become certain since the last call; all that is left if `final`."""
        held = 0 if final or self.stopped else self._held()
        text = self.text[self._shown : len(self.text) - held]
        self._shown += len(text)
        return text

    def _append(self, piece: str) -> bool:
        if self.stopped or not piece:
            return self.stopped
        start = max(len(self.text) - self._longest + 1, 0)
        self.text += piece
        places = [place for stop in self._stop_strings if (place := self.text.find(stop, start)) >= 0]
        if places:
            self.text, self.stopped = self.text[: min(places)], True
        return self.stopped

    def _held(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        lengths = range(min(self._longest - 1, len(self.text)), 0, -1)
        ends = (n for n in lengths if any(stop.startswith(self.text[-n:]) for stop in self._stop_strings))
        return next(ends, 0)
