"""Tool calls told from text."""

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given

from zaya_jax.serving.tool_calls import CLOSE, OPEN, ToolCall, ToolStream, read_call, write_call


def tool(name="f", **properties):
    return {"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}


def inside(text):
    return text.removeprefix(OPEN).removesuffix(CLOSE)


ANY = tool(
    s={"type": "string"},
    i={"type": "integer"},
    x={"type": "number"},
    b={"type": "boolean"},
    o={"type": "object"},
    a={"type": "array"},
    m={"type": ["string", "null"]},
    u={"anyOf": [{"type": "integer"}, {"type": "null"}]},
)


@pytest.mark.parametrize(
    "key, text, value",
    [
        ("s", "007", "007"),
        ("s", "", ""),
        ("s", "a\n\n  b\n", "a\n\n  b\n"),
        ("s", '{"not": "read"}', '{"not": "read"}'),
        ("i", "7", 7),
        ("i", " 7 ", 7),
        ("i", "7.5", "7.5"),
        ("i", "true", "true"),
        ("i", "seven", "seven"),
        ("x", "-1e3", -1000.0),
        ("b", "true", True),
        ("b", "False", False),
        ("o", '{"k": [1, null]}', {"k": [1, None]}),
        ("o", "[1]", "[1]"),
        ("a", "[1, 2]", [1, 2]),
        ("m", "null", None),
        ("m", "nil", "nil"),
        ("u", "None", None),
        ("u", "3", 3),
        ("unknown", "3", "3"),
        ("s", "</parameter> in the midst\n</function>", "</parameter> in the midst\n</function>"),
        ("s", "x\n<parameter=y>", "x\n<parameter=y>"),
        ("a", "[" * 100_000, "[" * 100_000),
    ],
)
def test_values(key, text, value):
    block = f"\n<function=f>\n<parameter={key}>\n{text}\n</parameter>\n</function>\n"
    assert read_call(block, [tool("g", i={"type": "string"}), ANY]) == ToolCall("f", {key: value})


@pytest.mark.parametrize(
    "block",
    [
        "",
        "f()",
        '{"name": "f", "arguments": {}}',
        "<function=f>",
        "<function=>\n</function>",
        "<function=a b>\n</function>",
        "<function=f>\nwords\n</function>",
        "<function=f>\n<parameter=x>\n1\n</function>",
        "<function=f>\n<parameter=>\n1\n</parameter>\n</function>",
        "<function=f>\n<parameter=x>\n1\n</parameter>\nwords\n</function>",
        "<function=f>\n<parameter=x>\n1\n</parameter>\n<parameter=x>\n2\n</parameter>\n</function>",
        "<function=f>\n</function>\nmore",
        "<function=f>\n<parameter=x</function>",
    ],
)
def test_what_is_no_call_stays_text(block):
    assert read_call(block) is None
    text = f"before {OPEN}{block}{CLOSE} behind"
    stream = ToolStream()
    assert "".join(stream.push(text) + stream.flush()) == text


ODD = [{}, {"function": 3}, tool(), {"function": {"name": "f", "parameters": []}}, tool(k=3), tool(k={"type": 3}),
       tool(k={"anyOf": [3, {"type": None}]})]  # fmt: skip


@pytest.mark.parametrize("schemas", [[one] for one in ODD])
def test_schemas_of_any_form_do_no_harm(schemas):
    assert read_call("<function=f><parameter=k>1</parameter></function>", schemas).arguments == {"k": "1"}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
).filter(lambda value: not {"<", ">"} & set(json.dumps(value)))
texts = st.text(st.sampled_from("ab \n\t<>/=parmfunctioné\r")).filter(
    lambda text: "</p" not in text and CLOSE not in text
)
names = st.from_regex(r"[A-Za-z_][\w.-]{0,20}", fullmatch=True)
arguments = st.dictionaries(names, texts | values, max_size=4)


def schema_of(value):
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return {"type": kinds.get(type(value), "null")}


@given(names, arguments)
def test_what_is_written_is_read_again(name, arguments):
    call = ToolCall(name, arguments)
    tools = [tool(name, **{key: schema_of(value) for key, value in arguments.items()})]
    assert read_call(inside(write_call(call)), tools) == call


plain = st.text(st.sampled_from("ab \n<z/")).filter(lambda text: OPEN not in text)


calls = st.builds(ToolCall, names, st.dictionaries(names, texts, max_size=2))
lengths = st.lists(st.integers(1, 12), min_size=1, max_size=8)


@given(st.lists(st.tuples(plain, calls), max_size=3), plain, lengths)
def test_however_text_is_cut_the_same_comes_out(pairs, end, cuts):
    text = "".join(before + write_call(call) for before, call in pairs) + end
    stream, parts, place, turn = ToolStream(), [], 0, 0
    while place < len(text):
        step = cuts[turn % len(cuts)]
        parts += stream.push(text[place : place + step])
        place, turn = place + step, turn + 1
    parts += stream.flush()
    expected = []
    for index, (before, call) in enumerate(pairs):
        expected += [before.strip() if index else before.rstrip(), call]
    expected.append(end.lstrip() if pairs else end)
    assert joined(parts) == [part for part in expected if part]


def joined(parts):
    out = []
    for part in parts:
        if isinstance(part, str) and out and isinstance(out[-1], str):
            out[-1] += part
        else:
            out.append(part)
    return out


def test_text_is_shown_as_soon_as_it_cannot_be_a_call():
    stream = ToolStream()
    assert stream.push("one two") == ["one two"]
    assert stream.push(" <zy") == []
    assert stream.push("x") == [" <zyx"]
    assert stream.push("\n\n<zyphra_tool_call>\n<function=f>") == []
    assert stream.push("\n</function>\n</zyphra_tool_call>\n") == [ToolCall("f", {})]
    assert stream.push("\nthree") == ["three"]
    assert stream.push(f"{OPEN}<function=g>") + stream.flush() == [f"{OPEN}<function=g>"]
