"""Chat templates: messages in, prompt text out.

The meaning of a template is that of `apply_chat_template` in Hugging Face transformers 5.23: an immutable jinja2
sandbox, blocks trimmed, `break`/`continue`, `raise_exception`, `strftime_now`, a `tojson` that does not escape HTML.
Templates come with checkpoints and are therefore untrusted; whatever goes wrong in one ends in a one-line `UserError`.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import pathlib
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

from zaya_jax.errors import UserError, mistake

CHATML = pathlib.Path(__file__).with_name("chatml.jinja")
_TEMPLATE_FRAME = "<template>"  # the file name that jinja2 gives to templates made from a string
_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
_MESSAGE_FIX = "write each message as {'role': 'user', 'content': '...'}"


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """A jinja2 chat template and where it came from (a file, for messages to the user)."""

    source: str
    origin: str


def chatml_template() -> ChatTemplate:
    """Returns the library's own ChatML template (`chatml.jinja`), used by its byte-level models."""
    return ChatTemplate(CHATML.read_text(encoding="utf-8"), str(CHATML))


def render_chat(
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    special_tokens: Mapping[str, str] | None = None,
    **variables: Any,
) -> str:
    """Renders messages into the text that the model reads.

    Args:
        template: the template to render.
        messages: dicts with `role` and `content`; other keys (`reasoning_content`, `tool_calls`, ...) pass through.
        tools: JSON schemas of tools, as dicts.
        add_generation_prompt: end with the header of an assistant message.
        special_tokens: `bos_token`, `eos_token`, ... as strings.
        **variables: further variables of the template, e.g. `enable_thinking`; they win over `special_tokens`.

    Raises:
        UserError: for a message that is not one (naming its index), data that is not JSON, or a template that does
            not parse, refuses the messages, fails, or leaves the sandbox (naming its file and line).
    """
    context = {
        "documents": None,
        **(special_tokens or {}),
        **{name: _plain(value, name) for name, value in variables.items()},
        "messages": check_messages(messages),
        "tools": _checked_tools(tools),
        "add_generation_prompt": add_generation_prompt,
    }
    compiled = compile_template(template)
    try:
        return compiled.render(context)
    except Exception as error:  # a template is a program: it may fail in any way
        raise _render_mistake(template, error) from error


def compile_template(template: ChatTemplate) -> jinja2.Template:
    """Compiles a template, so that a broken one is found before any data is read.

    Raises:
        UserError: with file and line, if it does not parse.
    """
    try:
        return _compiled(template.source)
    except jinja2.TemplateSyntaxError as error:
        where, found = f"{template.origin}, line {error.lineno}", error.message
        fix = "correct the template or take the checkpoint's original"
        raise mistake("chat template does not parse", where=where, found=found, fix=fix) from error
    except RecursionError as error:
        raise mistake("chat template is nested too deeply", where=template.origin) from error


def check_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the messages as plain dicts, without keys whose value is None, or raises a `UserError`.

    Reasoning given as `reasoning` or `thinking` is also filed under `reasoning_content`, the name templates read
    (and under `thinking`, which some read), as transformers does.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise mistake("messages are not a list", found=type(messages).__name__, fix=_MESSAGE_FIX)
    if not messages:
        raise mistake("the list of messages is empty", expected="at least one message", fix=_MESSAGE_FIX)
    return [_checked_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _checked_message(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise mistake("message is not a dict", where=where, found=type(message).__name__, fix=_MESSAGE_FIX)
    plain = {key: value for key, value in _plain(message, where).items() if value is not None}
    role = plain.get("role")
    if not isinstance(role, str) or not role:
        raise mistake("message has no role", where=where, found=f"keys {sorted(plain)}", fix=_MESSAGE_FIX)
    if "content" not in plain and not plain.get("tool_calls"):
        raise mistake("message has no content", where=where, found=f"keys {sorted(plain)}", fix=_MESSAGE_FIX)
    if not isinstance(plain.get("content", ""), str):
        found = type(plain["content"]).__name__
        fix = "join text blocks into one string; images and audio are not supported"
        raise mistake("content is not text", where=f"{where}.content", expected="a string", found=found, fix=fix)
    return _with_reasoning_names(plain)


def _with_reasoning_names(message: dict[str, Any]) -> dict[str, Any]:
    reasoning = next((message[key] for key in _REASONING_KEYS if key in message), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _checked_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[Any] | None:
    if tools is None:
        return None
    if not isinstance(tools, Sequence) or not all(isinstance(tool, Mapping) for tool in tools):
        raise mistake("tools are not JSON schemas", expected="a list of dicts", found=type(tools).__name__)
    return [_plain(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def _plain(value: Any, where: str) -> Any:
    """Rebuilds a value out of exact JSON types.

    A template could call methods of any richer object (an enum, an array, a file), which no sandbox knows to be safe.
    """
    if value is None or isinstance(value, bool):
        return value
    for kind, base_value in ((str, str.__str__), (int, int.__int__), (float, float.__float__)):
        if isinstance(value, kind):
            return base_value(value)
    if isinstance(value, Mapping):
        return {_plain(key, where): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise mistake("value is not JSON", where=where, expected="text, numbers, lists, dicts", found=type(value).__name__)


def load_templates(directory: pathlib.Path, settings: Mapping[str, Any]) -> dict[str, ChatTemplate]:
    """Finds the chat templates of a checkpoint directory by name; the usual one is "default".

    Files (`chat_template.jinja`, `chat_templates/NAME.jinja`) replace what `settings`, the contents of
    tokenizer_config.json, holds under `chat_template`: a string, or a list of {"name", "template"}.

    Returns:
        {name: template}, empty if the checkpoint has none.

    Raises:
        UserError: for a `chat_template` of another form or a file that is not UTF-8.
    """
    files = {path.stem: path for path in sorted(directory.glob("chat_templates/*.jinja"))}
    if (directory / "chat_template.jinja").is_file():
        files["default"] = directory / "chat_template.jinja"
    if files:
        return {name: ChatTemplate(_read_template(path), str(path)) for name, path in files.items()}
    return _configured_templates(settings.get("chat_template"), f"{directory / 'tokenizer_config.json'}: chat_template")


def _read_template(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise mistake("cannot read the chat template", where=path, expected="UTF-8 text", found=error) from error


def _configured_templates(value: Any, where: str) -> dict[str, ChatTemplate]:
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": ChatTemplate(value, where)}
    try:
        named = {entry["name"]: entry["template"] for entry in value}
    except (TypeError, KeyError):
        named = {None: None}
    if not all(isinstance(text, str) for pair in named.items() for text in pair):
        raise mistake(
            "not a chat template", where=where, expected="a string or [{name, template}]", found=repr(value)[:80]
        )
    return {name: ChatTemplate(source, f"{where} {name!r}") for name, source in named.items()}


def pick_template(templates: Mapping[str, ChatTemplate], *, tools: Any, where: object) -> ChatTemplate:
    """Returns the template to use: "tool_use" if there are tools and it exists, else "default".

    Raises:
        UserError: if there is no template, or several and none of them is called "default".
    """
    if tools is not None and "tool_use" in templates:
        return templates["tool_use"]
    if "default" in templates:
        return templates["default"]
    if not templates:
        fix = f"add one (ChatML is in {CHATML.name} of zaya_jax/text), or give a plain text prompt instead of messages"
        raise mistake("the checkpoint has no chat template", where=where, expected="chat_template.jinja", fix=fix)
    raise mistake(
        "no chat template is called 'default'", where=where, found=sorted(templates), fix="rename the one to use"
    )


class _Refusal(jinja2.TemplateError):
    """What `raise_exception(text)` in a template raises."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}` marks an assistant's text for training masks; here it only renders."""

    tags: ClassVar = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


class _Namespace(jinja2.utils.Namespace):
    """A `namespace` without underscore names, which would reach Python's internals."""

    def __init__(*arguments: Any, **attributes: Any) -> None:
        self, *rest = arguments  # `self` stays free as an attribute name
        fields = dict(*rest, **attributes)
        for name in fields:
            _refuse_underscore(name)
        jinja2.utils.Namespace.__init__(self, fields)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: str) -> None:
    if str(name).startswith("_"):
        raise jinja2.sandbox.SecurityError(f"namespace attribute {name!r} starts with an underscore")


class _Dict:
    """`dict` as templates may use it. The type itself would let `dict.pop(messages[0], ...)` past the sandbox."""

    def __call__(self, *arguments: Any, **items: Any) -> dict[Any, Any]:
        return dict(*arguments, **items)

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


def _refuse(message: str) -> None:
    raise _Refusal(message)


def _to_json(value: Any, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


@functools.lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(dict=_Dict(), namespace=_Namespace, raise_exception=_refuse, strftime_now=_strftime_now)
    return environment


@functools.lru_cache(maxsize=64)
def _compiled(source: str) -> jinja2.Template:
    return _environment().from_string(source)


def _render_mistake(template: ChatTemplate, error: Exception) -> UserError:
    line = _template_line(error)
    where = template.origin if line is None else f"{template.origin}, line {line}"
    if isinstance(error, _Refusal):
        return mistake("the chat template refuses these messages", where=where, found=error.message)
    if isinstance(error, jinja2.sandbox.SecurityError):
        fix = "do not use this template: it reaches outside its sandbox"
        return mistake("the chat template was stopped", where=where, found=error.message, fix=fix)
    if isinstance(error, jinja2.UndefinedError):
        fix = "give the missing value or correct the template"
        return mistake("the chat template uses a value that is not there", where=where, found=error.message, fix=fix)
    found = f"{type(error).__name__}: {error}"
    return mistake("the chat template failed", where=where, found=found, fix="correct the template or the messages")


def _template_line(error: Exception) -> int | None:
    """The innermost line of the template on the error's traceback, which jinja2 rewrites to template lines."""
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == _TEMPLATE_FRAME]
    return lines[-1] if lines else None
