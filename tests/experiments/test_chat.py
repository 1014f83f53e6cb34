"""`experiments.chat`: a conversation through pipes and in a terminal."""

import io
import os
import pty
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.experiments.launching import ROOT, launch
from tests.sampling.models import tiny, tokenizer
from zaya_jax.errors import UserError
from zaya_jax.sampling.chat import Chat
from zaya_jax.sampling.generate import generate
from zaya_jax.sampling.request import Delta, Request, Sampling, derive_seed
from zaya_jax.sampling.terminal import HELP, converse, show
from zaya_jax.text.thinking import Piece, split_thinking_tokens

WARM = Sampling(1.0)


def make(**settings) -> Chat:
    return Chat(*tiny(), tokenizer(), **{"sampling": WARM, "max_new_tokens": 10, **settings})


def say(chat: Chat, text: str) -> str:
    return "".join(piece.text for piece in chat.reply(text))


class Terminal(io.StringIO):
    """A sink that is a terminal."""

    def isatty(self):
        return True


def test_every_turn_is_the_answer_to_the_whole_conversation():
    """What is kept in the cache changes nothing."""
    chat, asked = make(system="Be brief.", thinking=False), [{"role": "system", "content": "Be brief."}]
    for turn, text in enumerate(["Hi", "And?", "So"], 1):
        asked.append({"role": "user", "content": text})
        prompt = tokenizer().encode_chat(asked, enable_thinking=False)
        seed, stop_ids = derive_seed(0, turn), tokenizer().stop_ids
        alone = generate(*tiny(), [Request("r", prompt, seed, WARM, 10, stop_ids)], tokenizer=tokenizer())
        say(chat, text)
        asked = list(chat.messages)
        assert asked[-1]["role"] == "assistant"
        parts = split_thinking_tokens(alone[0].tokens, tokenizer())
        assert asked[-1]["content"] == tokenizer().decode(parts.answer).strip("\n")


def test_answer_and_reasoning_are_told_apart(monkeypatch):
    """The model is replaced by one that reasons."""
    tok = tokenizer()
    reply = tok.encode("<think>\nwhy\n</think>\n\nbecause", special=False) + list(tok.stop_ids)
    chat = make()
    play(monkeypatch, chat, [reply, reply])
    pieces = list(chat.reply("Hi"))
    assert "".join(piece.text for piece in pieces if piece.thinking) == "\nwhy\n"
    assert "".join(piece.text for piece in pieces if not piece.thinking) == "\n\nbecause"
    assert chat.messages == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "because", "reasoning_content": "why"},
    ]


def play(monkeypatch, chat, replies):
    """Makes the chat's model say these token lists, one a turn."""

    def delta(token):
        return Delta("r", 0, np.array([token]), np.zeros(1), np.zeros(1))

    turns = iter(replies)
    monkeypatch.setattr(chat._session, "reply", lambda _: (delta(token) for token in next(turns)))


def test_an_interrupted_answer_is_kept_and_one_not_begun_is_not():
    chat = make(thinking=False)
    answer = chat.reply("Hi")
    first = next(answer)
    answer.close()
    assert [message["role"] for message in chat.messages] in (["user", "assistant"], [])
    assert isinstance(first, Piece)
    before = list(chat.messages)
    chat.reply("never begun").close()
    assert chat.messages == before
    say(chat, "And?")
    assert chat.messages[: len(before)] == before and len(chat.messages) == len(before) + 2


def test_a_full_context_is_a_mistake_not_a_crash():
    chat = make()
    with pytest.raises(UserError, match="the context is full; expected at most 128 tokens; found"):
        say(chat, "x" * 130)
    assert chat.messages == []
    say(chat, "x" * 100)  # the answer is as long as there is room


def test_pipes(monkeypatch):
    tok = tokenizer()
    thinks = tok.encode("<think>hm</think>Yes.", special=False)
    chat, sink = make(), io.StringIO()
    play(monkeypatch, chat, [thinks, tok.encode("No.", special=False)])
    lines = "Is it?\n\n/nonsense\n/think off\nReally?\n/system Be kind.\n/reset\n/exit\nnever asked\n"
    converse(chat, io.StringIO(lines), sink)
    shown = sink.getvalue()
    assert shown.startswith("[thinking]\nhm\n[answer]\nYes.\nno such command: /nonsense\n" + HELP)
    assert shown.endswith("(thinking is off)\nNo.\n(a new conversation)\n(forgotten)\n")
    assert chat.messages == [{"role": "system", "content": "Be kind."}] and chat.thinking is False


def test_colours_in_a_terminal():
    sink = Terminal()
    show(iter([Piece("hm", True), Piece("", False), Piece("Yes", False)]), sink)
    show(iter([Piece("cut off", True)]), sink)
    assert sink.getvalue() == "\x1b[2mhm\x1b[0mYes\n\x1b[2mcut off\x1b[0m\n"


def test_an_interrupt_stops_the_answer_and_not_the_program(monkeypatch):
    chat, sink = make(), io.StringIO()

    def interrupted(_):
        yield Piece("half an ans", False)
        raise KeyboardInterrupt

    monkeypatch.setattr(chat, "reply", interrupted)
    converse(chat, io.StringIO("Hi\nAgain\n"), sink)
    assert sink.getvalue() == "half an ans\n(stopped)\n" * 2


def test_a_mistake_in_a_turn_goes_on(monkeypatch):
    chat, sink = make(), io.StringIO()
    converse(chat, io.StringIO("x" * 200 + "\n/exit\n"), sink)
    assert sink.getvalue().startswith("error: the context is full")


def test_without_a_tokenizer_or_a_template(checkpoint, tmp_path):
    with pytest.raises(UserError, match="a chat needs a tokenizer"):
        Chat(*tiny(), None, sampling=WARM)
    bare = shutil.copytree(checkpoint, tmp_path / "bare", ignore=shutil.ignore_patterns("*.jinja"))
    code, out, err = launch("chat", f"--checkpoint={bare}")
    assert (code, out) == (2, "") and "the checkpoint has no chat template" in err and err.count("\n") == 1


def test_through_a_pipe_as_a_user(checkpoint):
    flags = [f"--checkpoint={checkpoint}", "--max_new_tokens=5", "--dtype=float32", "--temperature=0"]
    code, out, err = launch("chat", *flags, stdin="Hi\nAnd?\n")
    assert (code, err) == (0, "")
    expected = io.StringIO()
    chat = make(max_new_tokens=5, sampling=Sampling(0.0))
    converse(chat, io.StringIO("Hi\nAnd?\n"), expected)
    assert out == expected.getvalue()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_in_a_terminal_as_a_user(checkpoint):
    """Ctrl-C at the prompt stays, /exit leaves."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "experiments.chat", f"--checkpoint={checkpoint}", "--max_new_tokens=100"]
    child = subprocess.Popen(
        command, cwd=ROOT, stdin=follower, stdout=follower, stderr=follower, start_new_session=True
    )
    os.close(follower)
    seen = read_until(leader, b"> ")
    assert b"/help shows the commands." in seen
    child.send_signal(signal.SIGINT)
    read_until(leader, b"leaves)")
    os.write(leader, b"/exit\n")
    assert child.wait(timeout=60) == 0
    os.close(leader)


def read_until(descriptor: int, mark: bytes) -> bytes:
    seen = b""
    while mark not in seen:
        seen += os.read(descriptor, 4096)
    return seen
