"""What is asked of the sampler and what it gives back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig

FinishReason = Literal["stop", "length"]

MAX_SEED = 2**32 - 1
MIN_TEMPERATURE = 1e-5


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a token is drawn from the model's logits; `zaya_jax/sampling/logits.py` defines each filter.

    Attributes:
        temperature: logits are divided by it; 0 is greedy (the most probable token, the filters do nothing).
        top_p: keeps the fewest most probable tokens that together reach this probability; 1 is off.
        top_k: keeps this many most probable tokens; -1 and 0 are off.
        min_p: keeps tokens at least this times as probable as the most probable one; 0 is off.

    Raises:
        UserError: a value is out of its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0

    def __post_init__(self):
        warm = _is_number(self.temperature) and (self.temperature == 0 or MIN_TEMPERATURE <= self.temperature <= 1e3)
        _check("temperature", warm, f"0 (greedy), or a number from {MIN_TEMPERATURE:g} to 1000", self.temperature)
        _check("top_p", _is_number(self.top_p) and 0 < self.top_p <= 1, "a number above 0, at most 1", self.top_p)
        _check("top_k", _is_integer(self.top_k) and self.top_k >= -1, "a count, or -1 or 0 for off", self.top_k)
        _check("min_p", _is_number(self.min_p) and 0 <= self.min_p <= 1, "a number from 0 to 1", self.min_p)


@dataclasses.dataclass(frozen=True)
class Request:
    """One prompt to continue. The tokens drawn depend on nothing but what stands here and the weights.

    Attributes:
        id: names the request in results and messages.
        tokens: the prompt's ids, any sequence or array of integers; kept as a tuple.
        seed: 0 to 2^32 - 1. Step t of the answer uses noise of (seed, t) alone.
        sampling: how tokens are drawn.
        max_new_tokens: the answer's longest length, reasoning and marks included.
        stop_ids: ids that end the answer; the one that does is its last token.
        stop_strings: texts that end the answer; they need a tokenizer.
        think_ids: the ids of `<think>` and `</think>`; a budget needs them. Reasoning is what is drawn while the last
            mark, the prompt's included, is `<think>`.
        thinking_budget: most tokens of reasoning, marks not counted; None is no limit.
        force_end: whether `</think>` is forced where they are spent, so that an answer follows. If not, or if the
            `answer_budget` is 0, all ends there.
        answer_budget: most tokens that are not reasoning, marks not counted. With 0 the answer ends at `</think>`.
            None is no limit.
        prefix: how many of the first tokens other requests share: the engine reads them apart from the rest, and once
            (`engine.Engine`).

    Raises:
        UserError: a value is out of its range, naming the request.
    """

    id: str
    tokens: tuple[int, ...]
    seed: int = 0
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    max_new_tokens: int = 256
    stop_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    think_ids: tuple[int, int] | None = None
    thinking_budget: int | None = None
    force_end: bool = True
    answer_budget: int | None = None
    prefix: int = 0

    def __post_init__(self):
        where = f"request {self.id}"
        set_field = object.__setattr__  # the class is frozen for its users
        set_field(self, "tokens", integers(self.tokens, f"{where}, tokens"))
        set_field(self, "stop_ids", integers(self.stop_ids, f"{where}, stop_ids"))
        _check("seed", _is_integer(self.seed) and 0 <= self.seed <= MAX_SEED, f"0 to {MAX_SEED}", self.seed, where)
        positive = _is_integer(self.max_new_tokens) and self.max_new_tokens >= 1
        _check("max_new_tokens", positive, "a positive integer", self.max_new_tokens, where)
        given = self.stop_strings
        texts = not isinstance(given, str) and all(isinstance(text, str) and text for text in given)
        _check("stop_strings", texts, "non-empty strings", given, where)
        set_field(self, "stop_strings", tuple(given))
        self._check_thinking(where)
        inside = _is_integer(self.prefix) and 0 <= self.prefix <= len(self.tokens)
        _check("prefix", inside, f"0 to {len(self.tokens)}, the prompt's length", self.prefix, where)

    def _check_thinking(self, where: str) -> None:
        for name in ("thinking_budget", "answer_budget"):
            budget = getattr(self, name)
            _check(name, budget is None or (_is_integer(budget) and budget >= 0), "a count, or None", budget, where)
        if self.think_ids is not None:
            object.__setattr__(self, "think_ids", integers(self.think_ids, f"{where}, think_ids"))
            two = len(self.think_ids) == 2 and self.think_ids[0] != self.think_ids[1]
            _check("think_ids", two, "two different ids, or None", self.think_ids, where)
        elif self.thinking_budget is not None or self.answer_budget is not None:
            fix = "give think_ids, the model's ids of <think> and </think>"
            raise mistake("a budget of reasoning needs the marks of reasoning", where=where, fix=fix)
        if self.thinking_budget == 0 and (not self.force_end or self.answer_budget == 0) and self.in_thinking:
            fix = "give a budget of reasoning, or force its end and give one of an answer"
            raise mistake("there is nothing to draw", where=where, found="no budget at all", fix=fix)

    @property
    def in_thinking(self) -> bool:
        """Whether the prompt ends inside a block of reasoning."""
        marks = [token for token in self.tokens if token in (self.think_ids or ())]
        return bool(marks) and marks[-1] == self.think_ids[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Completion:
    """The answer to a request of P prompt tokens: N sampled tokens.

    Attributes:
        id: the request's.
        tokens: int32 [N], the sampled ids; a stop id that ended the answer is the last one.
        logprobs_model: [N] of the exact type, log-probability under the model itself: temperature 1, no filter.
        logprobs_sampling: [N], under the distribution drawn from, after temperature and filters; 0 if greedy.
        routes_LT: int8 [L, P + N - 1], the class that each token the model has read took in each layer, the prompt's
            included. The last sampled token was never read: of `tokens` shifted by one, these are the inputs' routes.
        finish_reason: "stop" (an id, a string, or `</think>` where nothing is to follow it) or "length".
        versions_T: int32 [N], the version of the weights that drew each token (`Engine.update_weights`).
        think_end: which of `tokens` is the `</think>` that ended the reasoning; -1 for none.
        think_forced: whether that was forced by the budget rather than drawn.
        known_tokens: how many tokens of the prompt did not have to be read, as others had begun alike.
        text: the answer decoded, without its stop id or what begins with a stop string; None without a tokenizer.
        kept_KN: int32 [K, N], the ids that each token was drawn from, -1 behind them; None unless the engine was asked
            for them (`Engine`, kept). Of a forced token they say nothing.
    """

    id: str
    tokens: np.ndarray
    logprobs_model: np.ndarray
    logprobs_sampling: np.ndarray
    routes_LT: np.ndarray
    finish_reason: FinishReason
    versions_T: np.ndarray
    think_end: int = -1
    think_forced: bool = False
    known_tokens: int = 0
    text: str | None = None
    kept_KN: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Delta:
    """What an answer has gained.

    Attributes:
        id: the request's.
        index: the request's place in the list.
        tokens, logprobs_model, logprobs_sampling: of the new tokens, as in `Completion`.
        text: what has become certain of the answer's text: joined, the texts are the completion's. Empty without a
            tokenizer.
        completion: the whole answer, if it is finished.
    """

    id: str
    index: int
    tokens: np.ndarray
    logprobs_model: np.ndarray
    logprobs_sampling: np.ndarray
    text: str = ""
    completion: Completion | None = None


def derive_seed(seed: int, index: int) -> int:
    """A seed of its own for the index-th request of a run, from the seed of the run."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint32)[0])


def integers(values: Sequence[int] | np.ndarray, where: object) -> tuple[int, ...]:
    """Token ids as a tuple of Python integers.

    Raises:
        UserError: they are not a flat sequence of integers.
    """
    kinds = "a list of integers"
    if hasattr(values, "__array__"):
        values = np.asarray(values)
        if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
            raise mistake("not token ids", where=where, expected=kinds, found=f"{values.dtype}{list(values.shape)}")
        return tuple(values.tolist())
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise mistake("not token ids", where=where, expected=kinds, found=type(values).__name__)
    wrong = [value for value in values if not _is_integer(value)]
    if wrong:
        raise mistake("not a token id", where=where, expected="an integer", found=repr(wrong[0])[:80])
    return tuple(int(value) for value in values)


def check_request(request: Request, config: ModelConfig) -> None:
    """Checks what of a request depends on the model.

    Raises:
        UserError: an empty prompt, an id outside of the vocabulary, or more tokens than the model has positions for.
    """
    where, count, limit = f"request {request.id}", len(request.tokens), config.max_position_embeddings
    if count == 0:
        raise mistake("empty prompt", where=where, expected="at least one token")
    check_ids(np.asarray(request.tokens), config.vocab_size, f"{where}, tokens")
    if count >= limit:
        what, found = "the prompt leaves no room in the context for an answer", f"{count} tokens"
        raise mistake(what, where=where, expected=f"at most {limit - 1} tokens", found=found, fix="shorten the prompt")
    for token in request.think_ids or ():
        check_ids(np.asarray([token]), config.vocab_size, f"{where}, think_ids")
    if count + request.max_new_tokens > limit:
        expected, found = f"at most {limit} tokens", f"{count} of the prompt + {request.max_new_tokens} new ones"
        fix = f"ask for at most {limit - count} (max_new_tokens), or shorten the prompt"
        raise mistake("the answer would leave the context", where=where, expected=expected, found=found, fix=fix)


def check_text(request: Request, tokenizer: object | None) -> None:
    """Raises a UserError where a request needs a tokenizer and there is none."""
    if request.stop_strings and tokenizer is None:
        raise mistake("stop strings need a tokenizer", where=f"request {request.id}", fix="give stop_ids instead")


def check_ids(tokens: np.ndarray, vocab_size: int, where: object) -> None:
    """Checks token ids against the vocabulary.

    Raises:
        UserError: one is negative or not below `vocab_size`; the message has the place of the first.
    """
    outside = (tokens < 0) | (tokens >= vocab_size)
    if outside.any():
        place = [int(i) for i in np.argwhere(outside)[0]]
        expected, found = f"0 to {vocab_size - 1}", f"{tokens[tuple(place)]} at {place}"
        raise mistake("token id outside of the vocabulary", where=where, expected=expected, found=found)


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return (_is_integer(value) or isinstance(value, float | np.floating)) and math.isfinite(value)


def _check(name: str, right: bool, expected: str, found: object, where: str | None = None) -> None:
    if not right:
        where = name if where is None else f"{where}, {name}"
        raise mistake("out of range", where=where, expected=expected, found=repr(found)[:80])
