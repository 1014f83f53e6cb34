"""Records of training data: what is read from sound ones, and the one line that each mistake ends in."""

import pytest

from zaya_jax.data.schema import Text, parse_chat, parse_preference, parse_text
from zaya_jax.errors import UserError

ASK = {"role": "user", "content": "q"}
REPLY = {"role": "assistant", "content": "a"}


def chat(*messages, **keys):
    return {"messages": list(messages), **keys}


def refusal(parse, record) -> str:
    with pytest.raises(UserError) as caught:
        parse(record)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_text():
    assert parse_text({"text": "é", "id": 7, "schema": 1}) == Text("é")
    assert parse_text({"content": "b", "text": ""}, "content") == Text("b")


def test_a_chat_counts_its_replies_unless_they_say_otherwise():
    off, half = REPLY | {"train": False}, REPLY | {"weight": 0.5}
    found = parse_chat(chat(ASK | {"train": False}, off, ASK, half, ASK, REPLY, tools=[{"type": "function"}]))
    assert found.weights == (0, 0, 0, 0.5, 0, 1)
    assert found.tools == ({"type": "function"},)
    assert all(set(message) == {"role", "content"} for message in found.messages)


def test_reasoning_has_the_name_that_templates_read():
    found = parse_chat(chat(ASK, REPLY | {"reasoning": "why", "name": None}))
    assert found.messages[1]["reasoning_content"] == "why" and "name" not in found.messages[1]


def test_what_stands_behind_the_last_reply_is_left_out():
    assert parse_chat(chat(ASK, REPLY, ASK)) == parse_chat(chat(ASK, REPLY))


def test_a_preference_is_two_conversations_that_share_their_beginning():
    found = parse_preference({"prompt": [ASK], "chosen": REPLY, "rejected": [REPLY, ASK, REPLY | {"content": "b"}]})
    assert [m["content"] for m in found.chosen.messages] == ["q", "a"] and found.chosen.weights == (0, 1)
    assert [m["content"] for m in found.rejected.messages] == ["q", "a", "q", "b"]
    assert found.rejected.weights == (0, 1, 0, 1)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"text": "a", "schema": 2}, 'unknown schema; expected "schema": 1, or none; found 2'),
        ({"text": "a", "schema": True}, "unknown schema"),
        ({"body": "a"}, "no 'text'; expected {\"text\": \"...\"}; found keys ['body']; name the key"),
        ({"text": ["a"]}, "text: not a text; expected a string; found list"),
        ({"text": ""}, "text: empty text; expected at least one character"),
        ({"text": "a\ud800"}, "text: not Unicode; found a lone surrogate at character 1"),
    ],
)
def test_texts_that_are_not_right(record, words):
    assert words in refusal(parse_text, record)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"text": "a"}, "no 'messages'; expected"),
        (chat(), "list of messages is empty"),
        (chat(ASK), "no assistant message; expected at least one; found roles user; add an assistant"),
        (chat(REPLY), "begins with the assistant; expected a system or user message first"),
        (chat(ASK, {"role": "assistant"}), "messages[1]: message has no content"),
        (chat(ASK, {"content": "a"}), "messages[1]: message has no role"),
        (chat(ASK, REPLY | {"content": ["a"]}), "messages[1].content: content is not text"),
        (chat(ASK | {"content": "\udfff"}, REPLY), "messages[0].content: not Unicode"),
        (chat(ASK, REPLY | {"train": 0}), "messages[1].train: not a truth value; expected true or false; found 0"),
        (chat(ASK, REPLY | {"weight": -1}), "messages[1].weight: not a weight; expected a number from 0 up; found -1"),
        (chat(ASK, REPLY | {"weight": float("nan")}), "messages[1].weight: not a weight"),
        (chat(ASK, REPLY | {"weight": 1, "train": True}), "messages[1]: both 'train' and 'weight'"),
        (chat(ASK | {"train": True}, REPLY), "messages[0]: a user message that counts; only the assistant's"),
        (chat(ASK, REPLY | {"train": False}), "nothing to learn; expected an assistant message that counts"),
        (chat(ASK, REPLY, tools={}), "tools: not tools; expected a list of JSON schemas; found dict"),
        (chat(ASK, REPLY, schema="1"), "unknown schema"),
    ],
)
def test_chats_that_are_not_right(record, words):
    assert words in refusal(parse_chat, record)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": "q"}, "messages are not a list; found str"),
        ({"prompt": [ASK, 3]}, "prompt[1]: message is not a dict"),
        ({"prompt": [ASK, REPLY]}, "prompt: ends with the assistant; expected a message to reply to"),
        ({"chosen": ASK}, "chosen: not a reply; expected replies that begin and end with the assistant; found roles"),
        ({"rejected": [REPLY, ASK]}, "rejected: not a reply"),
        ({"rejected": REPLY}, "chosen and rejected are the same"),
        ({"chosen": REPLY | {"weight": 2}}, "chosen[0]: a 'weight' of its own"),
    ],
)
def test_preferences_that_are_not_right(change, words):
    record = {"prompt": [ASK], "chosen": REPLY, "rejected": REPLY | {"content": "b"}}
    parse_preference(record)
    assert words in refusal(parse_preference, record | change)
    missing = {key: value for key, value in record.items() if key not in change}
    assert f"no {next(iter(change))!r}; expected" in refusal(parse_preference, missing)
