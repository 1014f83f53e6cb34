"""Fields of a request's body: read by type and range, each refused by its name.

A field that is null counts as left out, as OpenAI's clients send it. Unknown ones are ignored (`user`, `metadata`,
`store`, ...), but for those that would change the answer and that we do not have (`refuse_unsupported`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.serving.refusals import Refusal, shown, wrong_field

MOST_STOPS = 16


class Fields:
    """The fields of a JSON object.

    Args of the constructor:
        values: the object.
        where: its own name with a dot behind it, if it is inside of another one.

    Every method raises `Refusal` for a value of another type or range.
    """

    def __init__(self, values: Mapping[str, Any], where: str = ""):
        self.values, self.where = values, where

    def get(self, name: str) -> Any:
        """The value as it is; None if left out."""
        return self.values.get(name)

    def wrong(self, name: str, expected: str) -> Refusal:
        """The refusal of a field."""
        return wrong_field(self.where + name, expected, self.get(name))

    def integer(self, name: str, default: Any, low: int, high: int) -> Any:
        """An integer from `low` to `high`."""
        value = self.get(name)
        if value is None:
            return default
        if not is_integer(value) or not low <= value <= high:
            raise self.wrong(name, f"an integer from {low} to {high}")
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number from `low` to `high`."""
        value = self.get(name)
        if value is None:
            return default
        if not (is_integer(value) or isinstance(value, float)) or not low <= value <= high or not math.isfinite(value):
            raise self.wrong(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return default if value is None else value

    def choice(self, name: str, default: str, choices: Sequence[str]) -> str:
        """One of some words."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str) or value not in choices:
            raise self.wrong(name, " or ".join(f'"{choice}"' for choice in choices))
        return value

    def inner(self, name: str) -> Fields | None:
        """The fields of an object inside; None if left out."""
        value = self.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return None if value is None else Fields(value, f"{self.where}{name}.")

    def stops(self) -> tuple[str, ...]:
        """`stop`: a text or a few."""
        value = self.get("stop")
        texts = [value] if isinstance(value, str) else [] if value is None else value
        right = isinstance(texts, list) and all(isinstance(text, str) and text for text in texts)
        if not right or len(texts) > MOST_STOPS:
            raise self.wrong("stop", f"a text that is not empty, or a list of at most {MOST_STOPS}")
        return tuple(texts)

    def token_ids(self, name: str, most: int) -> tuple[int, ...]:
        """A list of token ids; none if left out."""
        value = self.get(name)
        if value is not None and not (is_token_ids(value) and len(value) <= most):
            raise self.wrong(name, f"a list of at most {most} token ids")
        return tuple(value or ())


def is_integer(value: object) -> bool:
    """Whether a value is an integer, which JSON's true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_token_ids(value: object) -> bool:
    """Whether a value is a list of integers."""
    return isinstance(value, list) and all(is_integer(token) and 0 <= token < 2**31 for token in value)


_BUDGET = "chat_template_kwargs.enable_thinking and thinking_budget say how much is thought"
# Each with the values that change nothing, which are let through, and what to do instead.
_UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "add_generation_prompt": ((True,), ""),
    "allowed_token_ids": ((), ""),
    "audio": ((), "the model has text alone"),
    "bad_words": (([],), ""),
    "chat_template": ((), "the checkpoint's template is used"),
    "continue_final_message": ((False,), "/v1/completions continues any text"),
    "documents": (([],), "put them into a message"),
    "echo": ((False,), "the prompt is not given back"),
    "frequency_penalty": ((0,), ""),
    "function_call": (("none", "auto"), "use tools and tool_choice"),
    "functions": (([],), "use tools"),
    "guided_choice": ((), ""),
    "guided_grammar": ((), ""),
    "guided_json": ((), ""),
    "guided_regex": ((), ""),
    "include_stop_str_in_output": ((False,), ""),
    "length_penalty": ((1,), ""),
    "logit_bias": (({},), ""),
    "min_tokens": ((0,), ""),
    "modalities": ((["text"],), "the model has text alone"),
    "parallel_tool_calls": ((True,), "the model decides how many calls it makes"),
    "presence_penalty": ((0,), ""),
    "prompt_embeds": ((), ""),
    "prompt_logprobs": ((), "python -m experiments.score gives them"),
    "reasoning_effort": ((), _BUDGET),
    "repetition_penalty": ((1,), ""),
    "response_format": (({"type": "text"},), "ask for the format in a message"),
    "skip_special_tokens": ((True,), ""),
    "structured_outputs": ((), ""),
    "suffix": (("",), ""),
    "top_logprobs": ((0,), "logprobs are of the tokens drawn"),
    "truncate_prompt_tokens": ((), ""),
    "use_beam_search": ((False,), ""),
    "web_search_options": ((), ""),
}


def refuse_unsupported(values: Mapping[str, Any], more: Mapping[str, str] | None = None) -> None:
    """Refuses fields that would change the answer and that are not supported.

    Args:
        more: others that do not go here, and why.
    """
    for name, value in values.items():
        neutral, instead = _UNSUPPORTED.get(name, ((value,), ""))
        if more and name in more:
            neutral, instead = (), more[name]
        if value is not None and value not in neutral:
            fix = f" ({instead})" if instead else ""
            message = f"{name} is not supported{fix}; leave it out; found {shown(value)}"
            raise Refusal(400, message, param=name, code="unsupported_parameter")


def bounded_sampling(fields: Fields, temperature: float, top_p: float) -> dict[str, Any]:
    """What `Sampling` is made of. A temperature too small to divide by is greedy."""
    warmth = fields.number("temperature", temperature, 0, 1000)
    mass = fields.number("top_p", top_p, 0, 1)
    if mass == 0:  # the fewest tokens that reach nothing: one
        mass = 1e-9
    return {
        "temperature": 0.0 if warmth < 1e-5 else warmth,
        "top_p": mass,
        "top_k": fields.integer("top_k", -1, -1, 2**31 - 1),
        "min_p": fields.number("min_p", 0.0, 0, 1),
    }
