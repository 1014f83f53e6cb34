"""Talking to a `Chat` in a terminal, or through pipes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TextIO

from zaya_jax.errors import UserError
from zaya_jax.sampling.chat import Chat
from zaya_jax.text.thinking import Piece

HELP = """\
/reset          forget the conversation
/system TEXT    forget it and begin anew with this system message (none: without one)
/think on|off   ask for reasoning, or not
/exit           leave, as Ctrl-D does
Ctrl-C stops an answer; what has come of it stays in the conversation.
"""
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def converse(chat: Chat, source: TextIO, sink: TextIO) -> None:
    """Answers line after line of `source` until it ends or says /exit.

    In a terminal, `sink` shows reasoning dim. Elsewhere it stands between the lines `[thinking]` and `[answer]`.
    """
    if source.isatty() and sink.isatty():
        sink.write("/help shows the commands.\n")
    while (line := _ask(source, sink)) is not None:
        if line.startswith("/"):
            if not _command(chat, line, sink):
                return
        elif line:
            _answer(chat, line, sink)


def _ask(source: TextIO, sink: TextIO) -> str | None:
    """The next line, None at the end."""
    while True:
        try:
            if source.isatty() and sink.isatty():
                with contextlib.suppress(ImportError):
                    import readline  # noqa: F401  (gives input() its line editing)
                return input("> ").strip()
            line = source.readline()
            return line.strip() if line else None
        except EOFError:
            sink.write("\n")
            return None
        except KeyboardInterrupt:
            sink.write("\n(/exit or Ctrl-D leaves)\n")


def _command(chat: Chat, line: str, sink: TextIO) -> bool:
    """Does what a command says; returns whether the conversation goes on."""
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name in ("/exit", "/quit"):
        return False
    if name == "/reset":
        system = chat.messages[0]["content"] if chat.messages and chat.messages[0]["role"] == "system" else None
        chat.reset(system)
        sink.write("(forgotten)\n")
    elif name == "/system":
        chat.reset(rest or None)
        sink.write("(a new conversation)\n")
    elif name == "/think" and rest in ("on", "off"):
        chat.thinking = rest == "on"
        sink.write(f"(thinking is {rest})\n")
    elif name == "/think":
        sink.write("/think on, or /think off\n")
    else:
        sink.write(HELP if name == "/help" else f"no such command: {name}; /help lists them\n")
    sink.flush()
    return True


def _answer(chat: Chat, text: str, sink: TextIO) -> None:
    pieces = chat.reply(text)
    try:
        show(pieces, sink)
    except KeyboardInterrupt:
        pieces.close()
        sink.write(f"{_PLAIN if sink.isatty() else ''}\n(stopped)\n")
    except UserError as error:
        sink.write(f"error: {error}\n")
    sink.flush()


def show(pieces: Iterator[Piece], sink: TextIO) -> None:
    """Writes an answer as it comes, and a line break behind it."""
    marks = {True: _DIM, False: _PLAIN} if sink.isatty() else {True: "[thinking]\n", False: "\n[answer]\n"}
    thinking = False
    for piece in pieces:
        if piece.text and piece.thinking != thinking:
            thinking = piece.thinking
            sink.write(marks[thinking])
        sink.write(shown(piece.text, sink))
        sink.flush()
    sink.write((_PLAIN if thinking and sink.isatty() else "") + "\n")


def shown(text: str, sink: TextIO) -> str:
    """The text as `sink` gets it: a terminal must not take a sampled control character for a command."""
    return text.translate(_CONTROLS) if sink.isatty() else text
