"""The tokenizer of a checkpoint directory: text to token ids and back.

Reads the files that Hugging Face repositories carry (tokenizer.json, tokenizer_config.json, chat_template.jinja,
generation_config.json, config.json) with the meaning transformers 5.23 gives them, without transformers.

ZAYA1's trap: plain encoding prepends `<bos>` (2) and appends `<|im_end|>` (106), after which a model has nothing left
to say. Use `encode_prompt` for text to be continued, `encode_chat` for messages, `encode` for whole documents.
"""

from __future__ import annotations

import codecs
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tokenizers

from zaya_jax.errors import mistake
from zaya_jax.text.byte_level import byte_characters
from zaya_jax.text.chat import ChatTemplate, load_templates, pick_template, render_chat

_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
_BYTE_OF = {character: byte for byte, character in enumerate(byte_characters())}


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """A tokenizer, its special ids and its chat templates. Made by `load_tokenizer`; holds no mutable state.

    Attributes:
        backend: the `tokenizers.Tokenizer` that does the work.
        source: where it came from, for messages to the user.
        bos_id: the id that starts a text, or None.
        pad_id: the id that fills a batch, or None.
        stop_ids: every id that ends a reply, from generation_config.json, config.json and tokenizer_config.json.
        think_start_id: the id of `<think>`, or None.
        think_end_id: the id of `</think>`, or None.
        vocab_size: one past the largest id; the embedding may have more rows.
        hidden_ids: the special ids that `decode` leaves out.
        suffix_ids: what plain encoding appends (ZAYA1: 106).
        special_tokens: `bos_token`, `eos_token`, ... as strings, the variables of chat templates.
        templates: chat templates by name.
    """

    backend: tokenizers.Tokenizer
    source: str
    bos_id: int | None
    pad_id: int | None
    stop_ids: tuple[int, ...]
    think_start_id: int | None
    think_end_id: int | None
    vocab_size: int
    hidden_ids: frozenset[int]
    suffix_ids: tuple[int, ...]
    special_tokens: Mapping[str, str]
    templates: Mapping[str, ChatTemplate]

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Returns the ids of a whole text, with what the file adds around it if `special` (ZAYA1: 2 ... 106).

        Raises:
            UserError: if the text is not a string that UTF-8 can carry.
        """
        return self.backend.encode(_checked_text(text), add_special_tokens=special).ids

    def encode_prompt(self, text: str) -> list[int]:
        """Returns the ids of a text to be continued: `encode`, less what the file appends. Raises as `encode`."""
        tokens = self.encode(text)
        return tokens[: len(tokens) - len(self.suffix_ids)]

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        enable_thinking: bool = True,
        **template_kwargs: Any,
    ) -> list[int]:
        """Returns the ids of rendered messages. The template alone decides on special tokens; none are added.

        Raises:
            UserError: as `render_chat` of `zaya_jax.text.chat`, and if the checkpoint has no chat template.
        """
        text = self.render_chat(
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=enable_thinking,
            **template_kwargs,
        )
        return self.encode(text, special=False)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        enable_thinking: bool = True,
        **template_kwargs: Any,
    ) -> str:
        """Returns the text that `encode_chat` encodes."""
        return render_chat(
            pick_template(self.templates, tools=tools, where=self.source),
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            special_tokens=self.special_tokens,
            enable_thinking=enable_thinking,
            **template_kwargs,
        )

    def decode(self, tokens: Iterable[int], *, skip_special: bool = True) -> str:
        """Returns the text of ids; ids past the tokenizer (unused embedding rows) are empty text.

        Where `<think>` is a special token, `skip_special` removes the marks and leaves the reasoning in the text:
        split first (`zaya_jax.text.thinking.split_thinking`).
        """
        return self.backend.decode([int(token) for token in tokens], skip_special_tokens=skip_special)


def load_tokenizer(directory: str | os.PathLike[str]) -> Tokenizer | None:
    """Reads the tokenizer of a checkpoint directory.

    Returns:
        The tokenizer, or None if there is no tokenizer.json: such a checkpoint still scores and samples token ids.

    Raises:
        UserError: if the directory is missing, or a file in it is broken.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise mistake("no such directory", where=directory, expected="a checkpoint directory")
    path = directory / "tokenizer.json"
    if not path.is_file():
        return None
    return _assemble(_read_backend(path), directory)


def require_tokenizer(directory: str | os.PathLike[str]) -> Tokenizer:
    """As `load_tokenizer`, for work that needs text: a checkpoint without a tokenizer is a `UserError`."""
    tokenizer = load_tokenizer(directory)
    if tokenizer is None:
        fix = "copy tokenizer.json and its companions from the model's repository, or give token ids instead of text"
        raise mistake("the checkpoint has no tokenizer", where=directory, expected="tokenizer.json", fix=fix)
    return tokenizer


def _assemble(backend: tokenizers.Tokenizer, directory: pathlib.Path) -> Tokenizer:
    path = directory / "tokenizer_config.json"
    settings = _read_json(path)
    named = _named_tokens(settings, path)
    _make_special(backend, named)
    configs = [
        (str(file), _read_json(file)) for file in (directory / "generation_config.json", directory / "config.json")
    ]
    ids = {key: _declared_ids(key, configs, named, backend) for key in ("bos", "eos", "pad")}
    return Tokenizer(
        backend=backend,
        source=str(directory),
        bos_id=next(iter(ids["bos"]), None),
        pad_id=next(iter(ids["pad"]), None),
        stop_ids=ids["eos"],
        think_start_id=backend.token_to_id("<think>"),
        think_end_id=backend.token_to_id("</think>"),
        vocab_size=max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1,
        hidden_ids=frozenset(index for index, token in backend.get_added_tokens_decoder().items() if token.special),
        suffix_ids=_suffix_ids(backend),
        special_tokens=_special_tokens(named, ids, backend),
        templates=load_templates(directory, settings),
    )


def _read_backend(path: pathlib.Path) -> tokenizers.Tokenizer:
    try:
        content = path.read_bytes()
        backend = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises bare Exception, OSError and ValueError for broken files
        pointer = not isinstance(error, OSError) and content.startswith(b"version https://git-lfs")
        found = "a Git LFS pointer" if pointer else error
        fix = "run `git lfs pull`" if pointer else "download the file again"
        raise mistake("cannot read", where=path, expected="a tokenizers JSON file", found=found, fix=fix) from error
    # A file may bake in truncation and padding for its own training; here every text is encoded whole.
    backend.no_truncation()
    backend.no_padding()
    return backend


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    """Returns the JSON object in a file, {} if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise mistake("cannot read", where=path, expected="JSON", found=error, fix="download the file again") from error
    if not isinstance(value, dict):
        raise mistake("not a JSON object", where=path, found=type(value).__name__, fix="download the file again")
    return value


def _named_tokens(settings: Mapping[str, Any], where: object) -> dict[str, str]:
    """Returns `bos_token` and its like, which tokenizer_config.json writes as a string or as {"content": string}."""
    named = {}
    for key in _NAMED:
        value = settings.get(key)
        content = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(content, str):
            named[key] = content
        elif value is not None:
            raise mistake("not a token", where=f"{where}: {key}", expected="a string", found=repr(value)[:80])
    return named


def _make_special(backend: tokenizers.Tokenizer, named: Mapping[str, str]) -> None:
    """Makes the named tokens special, so that `decode` leaves them out even where tokenizer.json forgot to say so.

    As transformers does, but a token that the vocabulary lacks is never added to it: its id would have no embedding.
    `add_bos_token` and `add_eos_token` beside a tokenizer.json mean nothing there, and so mean nothing here.
    """
    special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    forgotten = [token for token in named.values() if token not in special and backend.token_to_id(token) is not None]
    backend.add_special_tokens([tokenizers.AddedToken(token, normalized=False) for token in forgotten])


def _declared_ids(
    key: str, configs: Iterable[tuple[str, Mapping[str, Any]]], named: Mapping[str, str], backend: tokenizers.Tokenizer
) -> tuple[int, ...]:
    """Returns every id that the checkpoint's files give for bos, eos or pad, the most binding file first."""
    found = [index for where, config in configs for index in _as_ids(config.get(f"{key}_token_id"), key, where)]
    index = backend.token_to_id(named.get(f"{key}_token", ""))
    return tuple(dict.fromkeys(found if index is None else [*found, index]))


def _as_ids(value: Any, key: str, where: str) -> list[int]:
    values = [] if value is None else value if isinstance(value, list) else [value]
    if any(type(item) is not int or item < 0 for item in values):
        expected = "a number or a list of numbers, none below 0"
        raise mistake("not a token id", where=f"{where}: {key}_token_id", expected=expected, found=repr(value)[:80])
    return values


def _special_tokens(
    named: Mapping[str, str], ids: Mapping[str, Sequence[int]], backend: tokenizers.Tokenizer
) -> dict[str, str]:
    """Returns the variables of chat templates; what tokenizer_config.json leaves unnamed is named by its id."""
    by_id = {f"{key}_token": backend.id_to_token(values[0]) for key, values in ids.items() if values}
    return {**{key: token for key, token in by_id.items() if token is not None}, **named}


def _suffix_ids(backend: tokenizers.Tokenizer) -> tuple[int, ...]:
    """Returns what the post-processor appends, found on a probe: which token it is, each release decides anew."""
    plain = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a", add_special_tokens=True).ids
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[start + len(plain) :])
    return ()


def _checked_text(text: str) -> str:
    if not isinstance(text, str):
        raise mistake("not a text", expected="a string", found=type(text).__name__)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        found = f"a lone surrogate at character {error.start}"
        raise mistake("the text is not Unicode", found=found, fix="re-encode it as UTF-8") from error
    return text


def token_bytes(tokenizer: Tokenizer, token: int) -> bytes:
    """Returns the bytes that one token stands for, special ones spelled out: of a character, perhaps a part only."""
    piece = tokenizer.backend.id_to_token(int(token))
    if piece is None:
        return b""
    if _is_fallback_byte(piece):
        return bytes([int(piece[3:5], 16)])
    if _is_byte_level(tokenizer.backend):
        return _spelled(piece)
    return tokenizer.decode([token], skip_special=False).encode("utf-8")


class StreamDecoder:
    """Decodes a reply while it is being sampled: the pieces joined are `tokenizer.decode` of all its tokens.

    No piece holds half a character or text that later tokens would change. Two kinds of vocabulary differ in what
    must wait:

    - byte-level BPE: a token is bytes, so an unfinished UTF-8 sequence waits;
    - byte fallback (Gemma, ZAYA1): a run of `<0x..>` tokens is decoded as a whole, as one invalid byte makes the whole
      run replacement characters, so a run waits for the token after it.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True):
        self._tokenizer = tokenizer
        self._skipped = tokenizer.hidden_ids if skip_special else frozenset()
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace") if _is_byte_level(tokenizer.backend) else None
        self._context: list[int] = []
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """Takes one token and returns the text that is now certain, often empty."""
        piece = self._tokenizer.backend.id_to_token(int(token))
        if piece is None or int(token) in self._skipped:
            return ""
        if self._utf8 is not None:
            return self._utf8.decode(_spelled(piece))
        self._held.append(int(token))
        return "" if _is_fallback_byte(piece) else self._release()

    def flush(self) -> str:
        """Returns what is still held, as it stands, and starts afresh."""
        if self._utf8 is not None:
            return self._utf8.decode(b"", final=True)
        text = self._release()
        self._context = []
        return text

    def _release(self) -> str:
        # The token before the held ones goes along: decoders treat the first token of a text differently.
        before = self._tokenizer.decode(self._context, skip_special=False)
        text = self._tokenizer.decode(self._context + self._held, skip_special=False)
        self._context = self._held[-1:] or self._context
        self._held = []
        return text[len(before) :]


@functools.lru_cache(maxsize=8)  # the whole decoder is written out to find it
def _is_byte_level(backend: tokenizers.Tokenizer) -> bool:
    if backend.decoder is None:
        return False
    decoder = json.loads(backend.decoder.__getstate__())
    return any(part["type"] == "ByteLevel" for part in decoder.get("decoders", [decoder]))


def _spelled(piece: str) -> bytes:
    """Returns the bytes of a byte-level token; a token outside the alphabet (an added one) is its own UTF-8."""
    try:
        return bytes(_BYTE_OF[character] for character in piece)
    except KeyError:
        return piece.encode("utf-8")


def _is_fallback_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
