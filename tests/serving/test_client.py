"""OpenAI's own client against a server."""

import json

import pytest

from tests.serving.served import ScriptedEngine, engine_like, listening, served, until
from zaya_jax.serving.asked import read_chat, read_completion
from zaya_jax.serving.reply import with_visible_tags
from zaya_jax.serving.server import Options, start_service
from zaya_jax.serving.tool_calls import ToolCall, write_call

openai = pytest.importorskip("openai", reason='needs the extra "serve-test"')

HELLO = [{"role": "user", "content": "Hello"}]


def expected(service, tokenizer, body, read=read_completion):
    """What an engine of its own says."""
    requests = read(body, served(tokenizer)).requests
    return engine_like(service.worker._engine).run(requests)


def test_models(client):
    (model,) = client.models.list().data
    assert (model.id, model.object, model.max_model_len) == ("tiny", "model", 1536)
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_completions_are_the_engines(client, service, tokenizer):
    body = {"prompt": "Once upon", "max_tokens": 20, "seed": 7, "temperature": 0.8, "top_p": 0.9}
    more = {"top_k": 50, "min_p": 0.01, "return_token_ids": True}
    said = client.completions.create(model="tiny", extra_body=more, logprobs=1, **body)
    (own,) = expected(service, tokenizer, body | more)
    (choice,) = said.choices
    assert said.object == "text_completion" and said.id.startswith("cmpl-")
    assert (choice.text, choice.finish_reason, choice.token_ids) == (own.text, own.finish_reason, own.tokens.tolist())
    assert choice.logprobs.token_logprobs == [float(x) for x in own.logprobs_model.tolist()]
    assert (
        len(choice.logprobs.tokens) == len(choice.logprobs.text_offset) == 20 and choice.logprobs.top_logprobs is None
    )
    prompt = len(tokenizer.encode_prompt("Once upon"))
    assert (said.usage.prompt_tokens, said.usage.completion_tokens) == (prompt, 20)
    again = client.completions.create(model="tiny", extra_body=more, **body)
    assert again.choices[0].text == own.text
    assert again.usage.prompt_tokens_details.cached_tokens == prompt, "read a moment ago"
    other = client.completions.create(model="tiny", extra_body=more, **{**body, "seed": 8})
    assert other.choices[0].text != own.text


def test_prompts_of_every_kind_and_n(client, service, tokenizer):
    ids = tokenizer.encode_prompt("abc")
    for prompt, count in [("abc", 1), (ids, 1), (["abc", "de"], 2), ([ids, ids[:2]], 2)]:
        said = client.completions.create(model="tiny", prompt=prompt, n=2, max_tokens=5, seed=1)
        own = expected(service, tokenizer, {"prompt": prompt, "n": 2, "max_tokens": 5, "seed": 1})
        assert [choice.index for choice in said.choices] == list(range(2 * count))
        assert [choice.text for choice in said.choices] == [one.text for one in own]
        assert said.choices[0].text != said.choices[1].text
        assert said.usage.completion_tokens == 10 * count
    assert said.usage.prompt_tokens == len(ids) + 2


def test_a_stream_is_the_same_as_the_whole(client):
    body = {"model": "tiny", "prompt": "Once", "n": 3, "max_tokens": 30, "seed": 3, "logprobs": 0}
    whole = client.completions.create(**body)
    texts, ends, numbers, usage = ["", "", ""], {}, [[], [], []], None
    for chunk in client.completions.create(**body, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            numbers[choice.index] += choice.logprobs.token_logprobs
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    assert texts == [choice.text for choice in whole.choices]
    assert ends == {choice.index: choice.finish_reason for choice in whole.choices}
    assert numbers == [choice.logprobs.token_logprobs for choice in whole.choices]
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_stop_strings(client):
    body = {"model": "tiny", "prompt": "Once", "max_tokens": 30, "seed": 5}
    text = client.completions.create(**body).choices[0].text
    stop = text[4:6]
    (choice,) = client.completions.create(**body, stop=stop).choices
    assert (choice.text, choice.finish_reason) == (text[: text.index(stop)], "stop")
    chunks = list(client.completions.create(**body, stop=["never", stop], stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == choice.text


def test_chat(client, service, tokenizer):
    body = {"messages": HELLO, "max_completion_tokens": 40, "seed": 2, "n": 2}
    said = client.chat.completions.create(model="tiny", logprobs=True, user="me", metadata={"a": "b"}, **body)
    own = expected(service, tokenizer, body, read_chat)
    assert said.object == "chat.completion"
    for choice, one in zip(said.choices, own):
        assert choice.message.role == "assistant" and choice.finish_reason == one.finish_reason
        tokens = choice.logprobs.content + list(choice.logprobs.reasoning_content)
        spelled = {tuple(token["bytes"] if isinstance(token, dict) else token.bytes) for token in tokens}
        assert spelled <= {(byte,) for byte in range(256)} | {
            tuple(b) for b in (b"<bos>", b"<eos>", b"<pad>", b"<|im_start|>")
        }
    assert said.usage.completion_tokens == sum(len(one.tokens) for one in own)
    texts, reasons = {0: ["", ""], 1: ["", ""]}, {}
    for chunk in client.chat.completions.create(model="tiny", stream=True, **body):
        for choice in chunk.choices:
            texts[choice.index][0] += choice.delta.content or ""
            texts[choice.index][1] += getattr(choice.delta, "reasoning_content", None) or ""
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
    for choice in said.choices:
        thought = getattr(choice.message, "reasoning_content", None) or ""
        assert [choice.message.content, thought] == texts[choice.index]
        assert reasons[choice.index] == choice.finish_reason


def test_thinking_is_switched_off_and_limited(client, tokenizer):
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    said = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2, extra_body=off)
    rendered = tokenizer.encode_chat(HELLO, enable_thinking=False)
    assert said.usage.prompt_tokens == len(rendered) > len(tokenizer.encode_chat(HELLO))
    (request,) = read_chat({"messages": HELLO, "thinking_budget": 3, "max_tokens": 9}, served(tokenizer)).requests
    assert (request.thinking_budget, request.think_ids, request.force_end) == (3, (5, 6), True)


@pytest.mark.parametrize(
    "error, param, body",
    [
        ("BadRequestError", "temperature", {"temperature": "hot"}),
        ("BadRequestError", "n", {"n": 0}),
        ("BadRequestError", "logit_bias", {"logit_bias": {"5": 1}}),
        ("BadRequestError", "messages", {"max_tokens": 5000}),
        ("BadRequestError", "messages[0].role", {"messages": [{"role": "robot", "content": ""}]}),
        ("NotFoundError", "model", {"model": "gpt"}),
    ],
)
def test_errors_are_of_their_classes(client, error, param, body):
    with pytest.raises(getattr(openai, error)) as caught:
        client.chat.completions.create(**{"model": "tiny", "messages": HELLO, **body})
    assert caught.value.param == param


def test_closing_a_stream_frees_its_slot(client, service):
    body = {"model": "tiny", "prompt": "Once", "max_tokens": 1400, "seed": 1, "n": 4}
    with client.completions.create(stream=True, extra_body={"ignore_eos": True}, **body) as stream:
        next(iter(stream))
        assert service.worker.held == 4
    steps = service.worker._engine.stats.decode_steps
    until(lambda: service.worker.held == 0 and not service.worker._engine.busy)
    assert service.worker._engine.stats.decode_steps - steps < 400, "long before their ends"


def test_leaving_before_the_answer_frees_the_slot_too(client, service):
    with pytest.raises(openai.APITimeoutError):
        client.completions.create(
            model="tiny", prompt="Once", max_tokens=1400, timeout=0.1, extra_body={"ignore_eos": True}
        )
    until(lambda: service.worker.held == 0 and not service.worker._engine.busy)


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {
    "city": {"type": "string"}, "days": {"type": "integer"}}}}}]  # fmt: skip
CALL = ToolCall("weather", {"city": "Zürich", "days": 2})
BROKEN = "<zyphra_tool_call>\n<function=weather\n</zyphra_tool_call>"


@pytest.fixture(scope="module")
def scripted(tokenizer):
    """A client whose model says what the last message asks it to."""
    visible = with_visible_tags(tokenizer)
    engine = ScriptedEngine(visible, lambda request: script(tokenizer, request))
    service = start_service(engine, visible, "scripted", 4096, Options(""), None)
    with (
        listening(service) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def script(tokenizer, request):
    prompt = tokenizer.decode(request.tokens, skip_special=False)
    say = "It is sunny." if "<|im_start|>tool" in prompt else prompt.rpartition("user\n")[2].partition("<|im_end|>")[0]
    return tokenizer.encode(say, special=False) + [4]


def ask(client, say, **more):
    return client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": say}], **more)


def test_tool_calls(scripted):
    say = f"Let me see.\n{write_call(CALL)}\n{write_call(CALL)}"
    choice = ask(scripted, say, tools=TOOLS, tool_choice="auto").choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me see.")
    calls = choice.message.tool_calls
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("weather", dict(CALL.arguments))
    ] * 2
    assert calls[0].id != calls[1].id
    found, content, reasons = [], "", []
    for chunk in ask(scripted, say, tools=TOOLS, stream=True):
        delta = chunk.choices[0].delta
        content += delta.content or ""
        found += delta.tool_calls or []
        reasons.append(chunk.choices[0].finish_reason)
    assert content == "Let me see." and [call.index for call in found] == [0, 1] and reasons[-1] == "tool_calls"
    assert [json.loads(call.function.arguments) for call in found] == [dict(CALL.arguments)] * 2
    answer = [{"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"}]
    history = [{"role": "user", "content": say}, choice.message.model_dump(exclude_none=True), *answer]
    reply = scripted.chat.completions.create(model="scripted", messages=history, tools=TOOLS)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("It is sunny.", "stop")


@pytest.mark.parametrize("say, more", [(BROKEN, {"tools": TOOLS}), (write_call(CALL), {}),
                                       (write_call(CALL), {"tools": TOOLS, "tool_choice": "none"})])  # fmt: skip
def test_what_is_no_call_or_not_wanted_stays_text(scripted, say, more):
    choice = ask(scripted, say, **more).choices[0]
    assert (choice.message.content, choice.finish_reason, choice.message.tool_calls) == (say, "stop", None)


def test_a_call_alone_has_no_content_and_one_cut_off_is_text(scripted):
    assert ask(scripted, write_call(CALL), tools=TOOLS).choices[0].message.content is None
    choice = ask(scripted, write_call(CALL), tools=TOOLS, max_tokens=60).choices[0]
    assert (
        choice.finish_reason == "length" and choice.message.content == write_call(CALL)[: len(choice.message.content)]
    )


def test_reasoning_and_answer(scripted):
    say = "<think>\nso and so\n</think>\n\nYes."
    said = ask(scripted, say, logprobs=True)
    message = said.choices[0].message
    assert (message.reasoning_content, message.content) == ("so and so", "Yes.")
    assert said.usage.completion_tokens_details.reasoning_tokens == len("\nso and so\n")
    assert "".join(token.token for token in said.choices[0].logprobs.content) == "\n\nYes."
    parts = {"reasoning_content": "", "content": ""}
    for chunk in ask(scripted, say, stream=True):
        for name in parts:
            parts[name] += getattr(chunk.choices[0].delta, name, None) or ""
    assert parts == {"reasoning_content": "so and so", "content": "Yes."}
