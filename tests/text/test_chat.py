"""Chat templates: what they render, what they refuse, what they cannot reach."""

import datetime
import enum
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.text.chat import (
    ChatTemplate,
    chatml_template,
    check_messages,
    compile_template,
    load_templates,
    pick_template,
    render_chat,
)

HELLO = [{"role": "user", "content": "Hello"}]


def render(source, messages=HELLO, **keywords):
    return render_chat(ChatTemplate(source, "model/chat_template.jinja"), messages, **keywords)


def refusal(source, messages=HELLO, **keywords) -> str:
    with pytest.raises(UserError) as caught:
        render(source, messages, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The language of templates


@pytest.mark.parametrize(
    "source, expected",
    [
        ("{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\n", "Hello\n"),
        ("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}", "<bos>Hello</s>"),
        ("{{ {'a': '<é>&', 'b': none} | tojson }}", '{"a": "<é>&", "b": null}'),
        ("{{ {'b': 1, 'a': [2]} | tojson(indent=1, sort_keys=true) }}", '{\n "a": [\n  2\n ],\n "b": 1\n}'),
        ("{{ {'é': 1} | tojson(ensure_ascii=true, separators=(',', ':')) }}", '{"\\u00e9":1}'),
        (
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}"
            "{% if i == 3 %}{% break %}{% endif %}{% endfor %}",
            "023",
        ),
        ("{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "6"),
        ("{{ namespace(self=1).self }}{{ dict(a=2).a }}{{ dict.fromkeys('b', 3).b }}", "123"),
        ("{{ tools is none }} {{ documents is none }} {{ add_generation_prompt }} {{ missing }}", "True True True "),
        ("{{ '<b>' }}{{ messages[0].role | upper }}", "<b>USER"),
        ("a\n{% generation %}\n{{ messages[0].content }}!\n{% endgeneration %}\nb", "a\nHello!\nb"),
        ("{% generation %}{% set x = 'in' %}{{ x }}{% endgeneration %}{{ x }}", "in"),
        ("{% for i in range(9) %}{% generation %}{{ i }}{% break %}{% endgeneration %}{% endfor %}", "0"),
    ],
)
def test_templates_render(source, expected):
    assert render(source, special_tokens={"bos_token": "<bos>", "eos_token": "</s>"}) == expected


def test_variables_win_over_special_tokens_and_messages_over_both():
    text = render(
        "{{ bos_token }} {{ depth.a[0] }} {{ messages[0].content }}",
        special_tokens={"bos_token": "<bos>", "messages": "x"},
        bos_token="<s>",
        depth={"a": (1,)},
    )
    assert text == "<s> 1 Hello"


def test_the_date_is_todays():
    before = datetime.datetime.now().strftime("%d %b %Y")
    text = render("{{ strftime_now('%d %b %Y') }}")
    assert text in (before, datetime.datetime.now().strftime("%d %b %Y"))


def test_tools_reach_the_template():
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    assert render("{{ tools[0].function.name }}", tools=[tool]) == "add"


@given(st.text())
def test_content_is_rendered_as_it_is(content):
    assert render("[{{ messages[0].content }}]", [{"role": "user", "content": content}]) == f"[{content}]"


# Messages


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_has_one_name(name):
    message = check_messages([{"role": "assistant", "content": "4", name: "2+2"}])[0]
    assert message["reasoning_content"] == message["thinking"] == "2+2"


def test_messages_are_copied_without_their_empty_keys():
    given_messages = [{"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]
    assert check_messages(given_messages) == [{"role": "assistant", "tool_calls": [{"id": 1}]}]
    assert given_messages[0]["content"] is None


def test_rich_values_become_plain_ones():
    class Role(enum.StrEnum):
        USER = "user"

    message = check_messages([{"role": Role.USER, "content": "a", "n": (1, True)}])[0]
    assert type(message["role"]) is str and message == {"role": "user", "content": "a", "n": [1, True]}


@pytest.mark.parametrize(
    "messages, where, what",
    [
        ("Hello", "messages", "not a list"),
        ({"role": "user", "content": "a"}, "messages", "not a list"),
        ([], "messages", "empty"),
        ([*HELLO, "a"], "messages[1]", "not a dict"),
        ([*HELLO, {"content": "a"}], "messages[1]", "no role"),
        ([{"role": "", "content": "a"}], "messages[0]", "no role"),
        ([{"role": 1, "content": "a"}], "messages[0]", "no role"),
        ([{"from": "human", "value": "a"}], "messages[0]", "['from', 'value']"),
        ([*HELLO, *HELLO, {"role": "user"}], "messages[2]", "no content"),
        ([{"role": "user", "content": None}], "messages[0]", "no content"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], "messages[0].content", "found list"),
        ([{"role": "user", "content": "a", "when": [datetime.date(2025, 1, 1)]}], "messages[0].when[0]", "found date"),
    ],
)
def test_a_bad_message_is_named_by_its_index(messages, where, what):
    message = refusal("", messages)
    assert where in message and what in message


@pytest.mark.parametrize("tools", ["add", [len], {"name": "add"}])
def test_tools_are_schemas(tools):
    assert "tools are not JSON schemas" in refusal("", tools=tools)


def test_variables_are_json():
    assert "enable_thinking" in refusal("", enable_thinking=object())


# Templates that fail


def test_a_syntax_error_has_its_line():
    message = refusal("a\nb\n{% if %}")
    assert message.startswith("model/chat_template.jinja, line 3: chat template does not parse")


def test_an_unknown_tag_or_filter_is_a_syntax_error():
    assert "nonsense" in refusal("{% nonsense %}")
    assert "nonsense" in refusal("{{ 1 | nonsense }}")


def test_a_template_nested_without_end_is_named():
    assert "nested too deeply" in refusal("{{ " + "(" * 50_000)


def test_a_broken_template_is_found_before_any_message():
    with pytest.raises(UserError, match="does not parse"):
        compile_template(ChatTemplate("{{", "x"))


def test_a_refusal_gives_the_templates_own_words():
    message = refusal("a\n{{ raise_exception('roles must\nalternate') }}")
    assert message == (
        "model/chat_template.jinja, line 2: the chat template refuses these messages; found roles must alternate"
    )


@pytest.mark.parametrize(
    "source, expected",
    [
        ("\n{{ missing.content }}", "line 2: the chat template uses a value that is not there; found 'missing'"),
        ("\n\n{{ messages[0].content + 1 }}", "line 3: the chat template failed; found TypeError"),
        ("{{ missing | tojson }}", "failed; found TypeError"),
        ("{{ range(1000000) | list | length }}", "OverflowError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ strftime_now(1) }}", "TypeError"),
        ("{% include 'other.jinja' %}", "failed"),
    ],
)
def test_a_failure_has_its_file_and_line(source, expected):
    message = refusal(source)
    assert message.startswith("model/chat_template.jinja") and expected in message


# The sandbox

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__['datetime'] }}",
    "{{ dict.__globals__ }}",
    "{{ dict.mro() }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace(x=1).__dict__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'] }}",
    "{{ self.__init__.__globals__ }}",
    "{{ (messages | attr('__class__')) }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ messages | map(attribute='__class__') | list | first }}",
    "{{ namespace(__class__=1) }}",
    "{% set ns = namespace() %}{% set ns.__init__ = 1 %}",
    "{% set f = ''.format_map %}{{ f({'a': 1}).__class__ }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_no_template_reaches_python(source):
    try:
        text = render(source)
    except UserError as error:
        assert "\n" not in str(error)
    else:  # jinja2 gives an empty undefined value for some
        assert not re.search("class|module|function|<", text)


@pytest.mark.parametrize("source", ["{{ ''.__class__.__mro__ }}", "{{ namespace(__class__=1) }}"])
def test_an_escape_is_called_one(source):
    message = refusal(source)
    assert "the chat template was stopped" in message and "reaches outside" in message


@pytest.mark.parametrize(
    "change", ["messages.append(1)", "messages[0].update({'role': 'x'})", "messages[0].pop('role')"]
)
def test_a_template_cannot_change_its_messages(change):
    messages = [{"role": "user", "content": "a"}]
    assert "was stopped" in refusal("{{ " + change + " }}", messages)
    assert messages == [{"role": "user", "content": "a"}]


def test_no_type_lends_its_methods_to_change_messages():
    assert "has no attribute 'pop'" in refusal("{{ dict.pop(messages[0], 'role') }}")


# Where templates come from


def test_a_file_wins_over_the_settings(tmp_path):
    assert load_templates(tmp_path, {}) == {}
    assert load_templates(tmp_path, {"chat_template": "a"})["default"].source == "a"
    (tmp_path / "chat_template.jinja").write_text("é", encoding="utf-8")
    assert load_templates(tmp_path, {"chat_template": "a"})["default"].source == "é"


def test_a_list_of_templates_is_picked_from_by_name(tmp_path):
    settings = {"chat_template": [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]}
    templates = load_templates(tmp_path, settings)
    assert pick_template(templates, tools=None, where="m").source == "a"
    assert pick_template(templates, tools=[], where="m").source == "b"
    assert "tool_use" in templates["tool_use"].origin


def test_a_folder_of_templates(tmp_path):
    (tmp_path / "chat_templates").mkdir()
    (tmp_path / "chat_templates" / "tool_use.jinja").write_text("b")
    (tmp_path / "chat_template.jinja").write_text("a")
    templates = load_templates(tmp_path, {})
    assert {name: template.source for name, template in templates.items()} == {"default": "a", "tool_use": "b"}


def test_several_templates_without_a_default_are_named():
    templates = {"rag": ChatTemplate("", ""), "plan": ChatTemplate("", "")}
    with pytest.raises(UserError, match=r"\['plan', 'rag'\]"):
        pick_template(templates, tools=None, where="m")


@pytest.mark.parametrize("value", [1, {"default": "a"}, [{"name": "a"}], ["a"], [{"name": 1, "template": "a"}]])
def test_other_forms_are_refused(tmp_path, value):
    with pytest.raises(UserError, match=r"tokenizer_config.json: chat_template: not a chat template"):
        load_templates(tmp_path, {"chat_template": value})


def test_a_template_that_is_not_text_is_named(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"chat_template\.jinja: cannot read"):
        load_templates(tmp_path, {})


# Our own ChatML

DIALOGUE = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "4", "reasoning_content": "add"},
    {"role": "user", "content": "3+3?"},
]
HEADER = "<|im_start|>assistant\n"
RENDERED = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
    f"{HEADER}4<|im_end|>\n<|im_start|>user\n3+3?<|im_end|>\n"
)
EMPTY = "<think>\n\n</think>\n\n"


def chatml(messages, **keywords):
    return render_chat(chatml_template(), messages, **keywords)


def test_chatml_prompts():
    assert chatml(DIALOGUE, add_generation_prompt=False) == RENDERED
    assert chatml(DIALOGUE) == chatml(DIALOGUE, enable_thinking=True) == RENDERED + HEADER
    assert chatml(DIALOGUE, enable_thinking=False) == RENDERED + HEADER + EMPTY


@pytest.mark.parametrize(
    "reply, thinking_on, expected",
    [
        ({"content": "6"}, True, "6"),
        ({"content": "6"}, False, EMPTY + "6"),
        ({"content": "6", "reasoning": "add"}, True, "<think>\nadd\n</think>\n\n6"),
        ({"content": "6", "reasoning": "add"}, False, EMPTY + "6"),
        ({"content": "<think>add</think>\n\n6"}, True, "<think>add</think>\n\n6"),
        ({"content": "<think>add</think>\n\n6"}, False, EMPTY + "6"),
    ],
)
def test_chatml_replies(reply, thinking_on, expected):
    messages = [*DIALOGUE, {"role": "assistant"} | reply]
    text = chatml(messages, add_generation_prompt=False, enable_thinking=thinking_on)
    assert text == f"{RENDERED}{HEADER}{expected}<|im_end|>\n"


def test_chatml_drops_the_reasoning_of_earlier_turns():
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>b</think>\n\nc"}, *HELLO]
    assert f"{HEADER}c<|im_end|>" in chatml(messages)


@given(data=st.data())
def test_chatml_prompts_are_prefixes_of_their_replies(data):
    content = st.text() | st.just("<think>a</think>b")
    turn = st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": content},
        optional={"reasoning_content": st.text(min_size=1)},
    )
    messages = data.draw(st.lists(turn, min_size=1, max_size=4))
    reply = {**data.draw(turn), "role": "assistant"}
    thinking_on = data.draw(st.booleans())
    prompt = chatml(messages, enable_thinking=thinking_on)
    whole = chatml([*messages, reply], enable_thinking=thinking_on, add_generation_prompt=False)
    assert whole.startswith(prompt) and whole.endswith("<|im_end|>\n")


@pytest.mark.parametrize(
    "messages, keywords, expected",
    [
        ([{"role": "tool", "content": "4"}], {}, "'tool'"),
        (
            [*HELLO, {"role": "assistant", "tool_calls": [{"id": 1}]}],
            {},
            "message 1 has the role 'assistant' with tool",
        ),
        (HELLO, {"tools": [{"name": "add"}]}, "no tool calls"),
    ],
)
def test_chatml_refuses_what_it_cannot_say(messages, keywords, expected):
    with pytest.raises(UserError, match=re.escape(expected)):
        chatml(messages, **keywords)
