"""A tokenizer that needs no training: one token a byte, and the special tokens of ZAYA1.

For small models trained on this machine. Same conventions as ZAYA1's tokenizer, so the same traps are met:
plain encoding prepends `<bos>` and appends `<|im_end|>`, and the embedding has more rows than the tokenizer has ids.

    ids     0 `<pad>`  1 `<eos>`  2 `<bos>`  3 `<|im_start|>`  4 `<|im_end|>`  5 `<think>`  6 `</think>`
    ids     7..262     the bytes 0..255
    rows    263..271   unused; a model's `vocab_size` is 272 (a multiple of 16)
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping

import tokenizers

from zaya_jax.errors import mistake
from zaya_jax.text.chat import ChatTemplate, chatml_template

SPECIALS = ("<pad>", "<eos>", "<bos>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
PAD_ID, EOS_ID, BOS_ID, IM_START_ID, IM_END_ID, THINK_START_ID, THINK_END_ID = range(7)
FIRST_BYTE_ID = len(SPECIALS)
BYTE_VOCAB_SIZE = 272


def byte_characters() -> tuple[str, ...]:
    """Returns the printable character that stands for each byte, in the alphabet of byte-level BPE (GPT-2).

    Bytes that Latin-1 prints stand for themselves; the others take the code points from 256 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return tuple(chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256))


def byte_tokenizer() -> tokenizers.Tokenizer:
    """Returns the byte-level tokenizer; `decode(encode(text))`, special tokens kept, is `text` for any text.

    Markers written out in a text, such as "<think>", become their own token, as with every chat tokenizer.
    """
    vocabulary = {token: index for index, token in enumerate((*SPECIALS, *byte_characters()))}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens([tokenizers.AddedToken(token, normalized=False) for token in SPECIALS[:THINK_START_ID]])
    # Not special: the reasoning block stays visible in decoded text.
    backend.add_tokens([tokenizers.AddedToken(token, normalized=False) for token in SPECIALS[THINK_START_ID:]])
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=["<bos>", "$A", "<|im_end|>"], special_tokens=[("<bos>", BOS_ID), ("<|im_end|>", IM_END_ID)]
    )
    return backend


def write_tokenizer(
    directory: str | os.PathLike[str],
    backend: tokenizers.Tokenizer | None = None,
    *,
    template: ChatTemplate | None = None,
) -> pathlib.Path:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja, readable by us and by transformers.

    All three are written beside their names and then renamed, so that a failure leaves the old files.

    Args:
        directory: made if missing.
        backend: the tokenizer, by default `byte_tokenizer()`; it has `<bos>`, `<|im_end|>` and `<pad>`.
        template: the chat template, by default ChatML.

    Returns:
        The directory.

    Raises:
        UserError: if the directory cannot be written.
    """
    directory = pathlib.Path(directory)
    contents = {
        "tokenizer.json": (backend or byte_tokenizer()).to_str(pretty=True),
        "tokenizer_config.json": json.dumps(_tokenizer_config(), indent=2),
        "chat_template.jinja": (template or chatml_template()).source,
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_beside(directory, contents)
    except OSError as error:
        raise mistake("cannot write the tokenizer", where=directory, found=error.strerror or error) from error
    return directory


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<|im_end|>",
        "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False,
    }


def _write_beside(directory: pathlib.Path, contents: Mapping[str, str]) -> None:
    with contextlib.ExitStack() as cleanup:
        beside = {name: cleanup.enter_context(_temporary(directory, text)) for name, text in contents.items()}
        for name, path in beside.items():
            os.replace(path, directory / name)


@contextlib.contextmanager
def _temporary(directory: pathlib.Path, text: str) -> Iterator[pathlib.Path]:
    handle, name = tempfile.mkstemp(dir=directory, prefix=".writing-")
    path = pathlib.Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        path.chmod(0o644)  # mkstemp's 0600 would hide a shared checkpoint from its other readers
        yield path
    finally:
        path.unlink(missing_ok=True)
