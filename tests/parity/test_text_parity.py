"""Tokenizers and chat templates next to transformers: the same ids, the same text, the same refusals."""

import json

import pytest

from tests.text.checkpoints import CHATML, write_checkpoint
from zaya_jax.errors import UserError
from zaya_jax.text.byte_level import BYTE_VOCAB_SIZE, byte_tokenizer, write_tokenizer
from zaya_jax.text.chat import chatml_template
from zaya_jax.text.tokenizer import load_tokenizer

pytestmark = pytest.mark.parity

IDS = {"bos_token_id": 2, "eos_token_id": 106, "pad_token_id": 0}
NAMES = {"bos_token": "<bos>", "eos_token": "<|im_end|>", "pad_token": "<pad>", "unk_token": "<unk>"}
TEXTS = ["", "hello the", "a€😀 naïve\n\nthe", "<think>\n</think>\n\nhe<|im_end|>\n", "  two  blanks ", "\u200d\x00"]
DIALOGUES = [
    [{"role": "user", "content": "Hello"}],
    [
        {"role": "system", "content": "  Be <b>brief</b>.\n"},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "4", "reasoning": "two & two"},
        {"role": "user", "content": "3+3?"},
        {"role": "assistant", "content": "<think>é</think>\n6", "name": None},
    ],
    [{"role": "user", "content": "add"}, {"role": "assistant", "tool_calls": [{"name": "add", "arguments": {"a": 1}}]}],
]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "<a> & é", "parameters": {"a": [1, None]}}}]
TEMPLATES = {
    "chatml": CHATML,
    "tools": "{{ bos_token }}{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}\n"
    "{% for m in messages %}\n  {% if m.tool_calls %}\n{{ m.tool_calls | tojson }}\n  {% else %}\n"
    "{{ m.role }}: {{ m.content | trim }} ({{ m.reasoning_content }}/{{ m.thinking }}/{{ m.name }})\n  {% endif %}\n"
    "{% endfor %}{% if documents is none %}none{% endif %}{{ unk_token }}{{ sep_token }}",
    "blocks": "{% set ns = namespace(n=0) %}{% for m in messages %}{% if loop.index0 == 2 %}{% break %}{% endif %}"
    "{% generation %}\n  {{- m.content }}\n{% set ns.n = ns.n + 1 %}\n{% set y = 1 %}{% endgeneration %}\n"
    "{{ y }}{% endfor %}{{ ns.n }}{{ dict(a=1) }}",
}


def theirs(directory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)


@pytest.fixture(params=["TokenizersBackend", "PreTrainedTokenizerFast", "GemmaTokenizer"])
def pair(request, tmp_path):
    settings = {"tokenizer_class": request.param, **NAMES}
    write_checkpoint(tmp_path, template=CHATML, tokenizer_config=settings, config={"model_type": "zaya", **IDS})
    return load_tokenizer(tmp_path), theirs(tmp_path)


@pytest.mark.parametrize("text", TEXTS)
def test_the_same_ids_and_text(pair, text):
    ours, their = pair
    assert ours.encode(text) == their(text)["input_ids"]
    assert ours.encode(text, special=False) == their(text, add_special_tokens=False)["input_ids"]
    for skip in (True, False):
        assert ours.decode(ours.encode(text), skip_special=skip) == their.decode(
            ours.encode(text), skip_special_tokens=skip
        )


def test_the_trap_is_theirs_too(pair):
    ours, their = pair
    assert their("hello")["input_ids"][::2] == [2, 106]
    assert ours.encode_prompt("hello") == their("hello")["input_ids"][:-1]


@pytest.mark.parametrize("flags", [{}, {"add_bos_token": True}, {"add_bos_token": False, "add_eos_token": False}])
@pytest.mark.parametrize("kind", ["TokenizersBackend", "GemmaTokenizer"])
def test_flags_beside_the_file_are_ignored_alike(tmp_path, flags, kind):
    settings = {"tokenizer_class": kind, **NAMES, **flags}
    write_checkpoint(tmp_path, tokenizer_config=settings, config={"model_type": "zaya", **IDS})
    assert load_tokenizer(tmp_path).encode("hello") == theirs(tmp_path)("hello")["input_ids"]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("dialogue", DIALOGUES)
@pytest.mark.parametrize("keywords", [{}, {"tools": TOOLS}, {"enable_thinking": False}])
def test_templates_render_alike(tmp_path, name, dialogue, keywords):
    settings = {"tokenizer_class": "TokenizersBackend", **NAMES}
    write_checkpoint(tmp_path, template=TEMPLATES[name], tokenizer_config=settings)
    ours, their = load_tokenizer(tmp_path), theirs(tmp_path)
    for prompt in (True, False):
        expected = their.apply_chat_template(dialogue, tokenize=False, add_generation_prompt=prompt, **keywords)
        assert ours.render_chat(dialogue, add_generation_prompt=prompt, **keywords) == expected
    expected = their.apply_chat_template(dialogue, add_generation_prompt=True, return_dict=False, **keywords)
    assert ours.encode_chat(dialogue, **keywords) == expected


@pytest.mark.parametrize("dialogue", DIALOGUES[:2])
@pytest.mark.parametrize("thinking_on", [True, False])
def test_our_chatml_renders_alike(tmp_path, dialogue, thinking_on):
    write_tokenizer(tmp_path)
    ours, their = load_tokenizer(tmp_path), theirs(tmp_path)
    assert their.chat_template == chatml_template().source
    expected = their.apply_chat_template(dialogue, tokenize=False, enable_thinking=thinking_on)
    assert ours.render_chat(dialogue, add_generation_prompt=False, enable_thinking=thinking_on) == expected


def test_named_templates_are_picked_alike(tmp_path):
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    settings = {"tokenizer_class": "TokenizersBackend", **NAMES, "chat_template": named}
    write_checkpoint(tmp_path, tokenizer_config=settings)
    ours, their = load_tokenizer(tmp_path), theirs(tmp_path)
    for tools in (None, TOOLS, []):
        expected = their.apply_chat_template(DIALOGUES[0], tools=tools, tokenize=False)
        assert ours.render_chat(DIALOGUES[0], tools=tools) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no') }}",
        "{{ ''.__class__ }}",
        "{{ missing.a }}",
        "{{ namespace(_a=1) }}",
        "{{ dict.mro() }}",
    ],
)
def test_templates_are_refused_alike(tmp_path, template):
    settings = {"tokenizer_class": "TokenizersBackend", **NAMES}
    write_checkpoint(tmp_path, template=template, tokenizer_config=settings)
    ours, their = load_tokenizer(tmp_path), theirs(tmp_path)
    try:
        expected = their.apply_chat_template(DIALOGUES[0], tokenize=False)
    except Exception:
        with pytest.raises(UserError):
            ours.render_chat(DIALOGUES[0])
    else:
        assert ours.render_chat(DIALOGUES[0]) == expected


@pytest.mark.parametrize("model_type", [None, "zaya"])
@pytest.mark.parametrize("text", TEXTS)
def test_the_byte_tokenizer_loads_in_transformers(tmp_path, model_type, text):
    write_tokenizer(tmp_path)
    if model_type:  # what lies beside it in an exported checkpoint: transformers maps this type to GemmaTokenizer
        config = {"model_type": model_type, "vocab_size": BYTE_VOCAB_SIZE, "bos_token_id": 2, "eos_token_id": 4}
        (tmp_path / "config.json").write_text(json.dumps(config))
    ours, their = load_tokenizer(tmp_path), theirs(tmp_path)
    assert len(their) == byte_tokenizer().get_vocab_size()
    assert ours.encode(text) == their(text)["input_ids"]
    plain = their(text, add_special_tokens=False)["input_ids"]
    assert their.decode(plain) == text == ours.decode(plain, skip_special=False)
    assert (their.bos_token_id, their.eos_token_id, their.pad_token_id) == (ours.bos_id, *ours.stop_ids, ours.pad_id)
