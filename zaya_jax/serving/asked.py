"""From a request's body to what the engine is asked."""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zaya_jax.errors import UserError
from zaya_jax.sampling.request import MAX_SEED, Request, Sampling, derive_seed
from zaya_jax.serving.fields import MOST_STOPS, Fields, bounded_sampling, is_token_ids, refuse_unsupported
from zaya_jax.serving.refusals import Refusal
from zaya_jax.text.tokenizer import Tokenizer

MOST_CHOICES = 128
_ROLES = ("system", "developer", "user", "assistant", "tool")
_KEPT = ("name", "tool_call_id", "reasoning_content", "reasoning")  # of a message, what templates may read


@dataclasses.dataclass(frozen=True)
class Served:
    """What a server has to offer.

    Attributes:
        name: of the model.
        tokenizer: of `reply.with_visible_tags`.
        context: tokens that a prompt and its answer may have together.
        places: answers that may be under way or wait, of all clients together.
        temperature, top_p: of requests that do not say.
        check: raises `UserError` for what the engine would not take.
    """

    name: str
    tokenizer: Tokenizer
    context: int
    places: int
    temperature: float
    top_p: float
    check: Callable[[Request], None]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a client asks for.

    Attributes:
        id: of the response.
        requests: one for each choice, in order.
        n: how many of them are of one prompt.
        stream, include_usage: whether the answer is sent as it comes, and its cost behind it.
        logprobs: whether those of the tokens drawn are wanted.
        token_ids: whether the ids are.
        tools: whose calls are to be found.
    """

    id: str
    requests: tuple[Request, ...]
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    logprobs: bool = False
    token_ids: bool = False
    tools: tuple[Mapping[str, Any], ...] | None = None


def read_completion(body: Mapping[str, Any], served: Served) -> Asked:
    """A body of /v1/completions.

    Raises:
        Refusal: a field is wrong, or the engine has no room.
    """
    fields = Fields(body)
    check_model(fields, served)
    refuse_unsupported(body)
    n = fields.integer("n", 1, 1, MOST_CHOICES)
    if fields.integer("best_of", n, 1, MOST_CHOICES) != n:
        raise Refusal(400, "best_of is not supported; leave it out", param="best_of", code="unsupported_parameter")
    prompts = _prompts(fields, served)
    response = new_id("cmpl")
    limit = fields.integer("max_tokens", 16, 1, 2**31 - 1)
    requests = make_requests(fields, served, response, prompts, n, limit, param="prompt")
    return Asked(
        response,
        requests,
        n,
        logprobs=fields.integer("logprobs", None, 0, 1) is not None,
        **_delivery(fields),
    )


def read_chat(body: Mapping[str, Any], served: Served) -> Asked:
    """A body of /v1/chat/completions, without `markovian_rsa`. Raises as `read_completion`."""
    fields = Fields(body)
    check_model(fields, served)
    refuse_unsupported(body)
    messages, tools = read_messages(fields), _tools(fields)
    thinking = enable_thinking(fields)
    try:
        prompt = served.tokenizer.encode_chat(messages, tools=tools, enable_thinking=thinking)
    except UserError as error:
        raise Refusal(400, str(error), param="messages", code="invalid_value") from error
    room = max(served.context - len(prompt), 1)
    limits = [fields.integer(name, None, 1, 2**31 - 1) for name in ("max_completion_tokens", "max_tokens")]
    limit = next((limit for limit in limits if limit is not None), room)
    budget = fields.integer("thinking_budget", None, 0, 2**31 - 1)
    marks = think_ids(served.tokenizer)
    if budget is not None and marks is None:
        raise Refusal(400, "thinking_budget: the model has no marks of reasoning", param="thinking_budget")
    more = {"think_ids": marks, "thinking_budget": None if budget is None else min(budget, room)}
    response = new_id("chatcmpl")
    n = fields.integer("n", 1, 1, MOST_CHOICES)
    requests = make_requests(fields, served, response, [prompt], n, limit, param="messages", **more)
    return Asked(
        response, requests, n, logprobs=fields.flag("logprobs"), tools=None if tools is None else tuple(tools),
        **_delivery(fields),
    )  # fmt: skip


def new_id(kind: str) -> str:
    """A name that no other response has."""
    return f"{kind}-{secrets.token_hex(12)}"


def think_ids(tokenizer: Tokenizer) -> tuple[int, int] | None:
    """The ids of the marks of reasoning, if the model has them."""
    marks = (tokenizer.think_start_id, tokenizer.think_end_id)
    return None if None in marks else marks


def check_model(fields: Fields, served: Served) -> None:
    """Refuses another model than the one that is served; none named is that one."""
    model = fields.get("model")
    if model is not None and not isinstance(model, str):
        raise fields.wrong("model", "a text")
    if model not in (None, served.name):
        message = f"there is no model {model[:200]!r} here, only {served.name!r}"
        raise Refusal(404, message, param="model", code="model_not_found")


def enable_thinking(fields: Fields) -> bool:
    """`chat_template_kwargs.enable_thinking`."""
    inner = fields.inner("chat_template_kwargs")
    if inner is None:
        return True
    for name in inner.values:
        if name != "enable_thinking":
            param = f"chat_template_kwargs.{name}"
            raise Refusal(400, f"{param} is not supported; only enable_thinking is", param=param)
    return inner.flag("enable_thinking", True)


def read_messages(fields: Fields) -> list[dict[str, Any]]:
    """`messages` as chat templates read them: texts joined, a call's arguments as an object."""
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise fields.wrong("messages", "a list of messages, at least one")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def seeds(fields: Fields, count: int) -> list[int]:
    """A seed for each choice: the first has the request's own, so that it can be found again without a server."""
    given = fields.integer("seed", None, -(2**63), 2**63 - 1)
    first = secrets.randbelow(MAX_SEED + 1) if given is None else given % (MAX_SEED + 1)
    return [first] + [derive_seed(first, index) for index in range(1, count)]


def make_requests(
    fields: Fields, served: Served, response: str, prompts, n: int, limit: int, *, param: str, **more
) -> tuple[Request, ...]:
    """The requests of n choices for each prompt.

    Raises:
        Refusal: too many, too long, or nothing that the engine takes.
    """
    count = len(prompts) * n
    if count > served.places:
        message = f"{count} answers are asked for, and the server has {served.places} places; ask for fewer"
        raise Refusal(400, message, param="n" if n > 1 else param, code="invalid_value")
    for prompt in prompts:
        check_room(len(prompt), limit, served.context, param)
    sampling = Sampling(**bounded_sampling(fields, served.temperature, served.top_p))
    ignored = fields.flag("ignore_eos")
    stop_ids = (() if ignored else served.tokenizer.stop_ids) + fields.token_ids("stop_token_ids", MOST_STOPS)
    stops, drawn = fields.stops(), seeds(fields, count)
    try:
        requests = tuple(
            Request(
                f"{response}/{index}",
                prompts[index // n],
                seed=drawn[index],
                sampling=sampling,
                max_new_tokens=limit,
                stop_ids=stop_ids,
                stop_strings=stops,
                **more,
            )
            for index in range(count)
        )
        for request in requests[::n]:
            served.check(request)
    except UserError as error:
        raise Refusal(
            400, str(error).removeprefix(f"request {response}/"), param=param, code="invalid_value"
        ) from error
    return requests


def check_room(prompt: int, limit: int, context: int, param: str) -> None:
    """Refuses what is longer than the context, in the words that clients look for."""
    if prompt + limit > context:
        message = (
            f"This model's maximum context length is {context} tokens; {prompt + limit} were asked for, "
            f"{prompt} in the {param} and {limit} of the answer. Shorten the {param}, or lower max_tokens."
        )
        raise Refusal(400, message, param=param, code="context_length_exceeded")


def _delivery(fields: Fields) -> dict[str, bool]:
    stream = fields.flag("stream")
    options = fields.inner("stream_options")
    if options is not None and not stream:
        raise Refusal(400, "stream_options: only with stream = true", param="stream_options", code="invalid_value")
    usage = options is not None and options.flag("include_usage")
    return {"stream": stream, "include_usage": usage, "token_ids": fields.flag("return_token_ids")}


def _prompts(fields: Fields, served: Served) -> list[Sequence[int]]:
    """`prompt`: a text, token ids, or a list of either."""
    given = fields.get("prompt")
    several = isinstance(given, list) and bool(given) and isinstance(given[0], list | str)
    prompts = given if several else [given]
    if len(prompts) > MOST_CHOICES or not all(isinstance(p, str) or (p and is_token_ids(p)) for p in prompts):
        raise fields.wrong("prompt", f"a text, a list of token ids, or a list of at most {MOST_CHOICES} of them")
    try:
        return [served.tokenizer.encode_prompt(p) if isinstance(p, str) else p for p in prompts]
    except UserError as error:
        raise Refusal(400, f"prompt: {error}", param="prompt", code="invalid_value") from error


def _tools(fields: Fields) -> list[Mapping[str, Any]] | None:
    tools = fields.get("tools")
    fields.choice("tool_choice", "auto", ("none", "auto"))
    if tools is None or tools == []:
        return None
    right = isinstance(tools, list) and all(
        isinstance(tool, dict)
        and tool.get("type") == "function"
        and isinstance(tool.get("function"), dict)
        and isinstance(tool["function"].get("name"), str)
        for tool in tools
    )
    if not right:
        raise fields.wrong("tools", 'a list of {"type": "function", "function": {"name", "parameters"}}')
    return None if fields.get("tool_choice") == "none" else tools


def _message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise Refusal(400, f"{where}: expected an object", param=where, code="invalid_value")
    fields = Fields(message, f"{where}.")
    if message.get("role") is None:
        raise fields.wrong("role", " or ".join(_ROLES))
    role = fields.choice("role", "", _ROLES)
    for name in ("audio", "function_call"):
        if message.get(name) is not None:
            raise Refusal(
                400, f"{where}.{name} is not supported", param=f"{where}.{name}", code="unsupported_parameter"
            )
    plain = {name: message[name] for name in _KEPT if message.get(name) is not None}
    for name, value in plain.items():
        if not isinstance(value, str):
            raise fields.wrong(name, "a text")
    plain |= {"role": "system" if role == "developer" else role}
    calls = message.get("tool_calls")
    if calls:
        plain["tool_calls"] = _past_calls(calls, fields)
    content = message.get("content")
    if content is None and not (role == "assistant" and (calls or plain.get("reasoning_content"))):
        raise fields.wrong("content", "a text, or a list of text parts")
    return plain | {"content": "" if content is None else _text(content, f"{where}.content")}


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Refusal(400, f"{where}: expected a text, or a list of text parts", param=where, code="invalid_value")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            message = f"{where}: only text parts are supported; found {str(kind)[:40]!r}"
            raise Refusal(400, message, param=where, code="invalid_value")
    return "".join(part["text"] for part in content)


def _past_calls(calls: Any, fields: Fields) -> list[dict[str, Any]]:
    """Calls of an earlier reply; templates write each argument apart, and so want an object where JSON text comes."""
    expected = "a list of calls with function.name and function.arguments, the text of a JSON object"
    try:
        plain = []
        for call in calls:
            name, arguments = call["function"]["name"], call["function"].get("arguments") or "{}"
            values = json.loads(arguments) if isinstance(arguments, str) else arguments
            if not isinstance(values, dict) or not isinstance(name, str):
                raise ValueError(expected)
            plain.append({**call, "function": {**call["function"], "arguments": values}})
        return plain
    except (TypeError, KeyError, AttributeError, ValueError, RecursionError) as error:
        raise fields.wrong("tool_calls", expected) from error
