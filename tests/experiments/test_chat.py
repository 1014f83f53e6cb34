"""`experiments.chat`: a conversation through pipes and in a terminal."""

import contextlib
import io
import os
import pty
import select
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.experiments.launching import ROOT, launch
from tests.sampling.models import replay, tiny, tokenizer
from zaya_jax.errors import UserError
from zaya_jax.sampling.chat import Chat
from zaya_jax.sampling.request import Delta, Sampling, derive_seed
from zaya_jax.sampling.terminal import HELP, converse, show
from zaya_jax.text.thinking import Piece
from zaya_jax.text.tokenizer import load_tokenizer

pytestmark = pytest.mark.usefixtures("quick_programs")

WARM = Sampling(1.0)


def make(**settings) -> Chat:
    return Chat(*tiny(), tokenizer(), **{"sampling": WARM, "max_new_tokens": 10, **settings})


def say(chat: Chat, text: str) -> str:
    return "".join(piece.text for piece in chat.reply(text))


class Terminal(io.StringIO):
    """A sink that is a terminal."""

    def isatty(self):
        return True


def test_every_turn_is_the_answer_to_the_whole_conversation(monkeypatch):
    """What is kept in the cache changes nothing."""
    chat, turns = make(system="Be brief.", thinking=False), []
    real = chat._session.reply

    def watched(request):
        for delta in real(request):
            yield delta
        turns.append((request, delta.completion))

    monkeypatch.setattr(chat._session, "reply", watched)
    for turn, text in enumerate(["Hi", "So?"], 1):
        asked = [*chat.messages, {"role": "user", "content": text}]
        said = say(chat, text)
        request, completion = turns[-1]
        assert request.tokens == tuple(tokenizer().encode_chat(asked, enable_thinking=False))
        assert (request.seed, request.stop_ids) == (derive_seed(0, turn), tokenizer().stop_ids)
        replay(request, completion)
        assert said == tokenizer().decode([token for token in completion.tokens if token not in request.stop_ids])
        assert chat.messages == [*asked, {"role": "assistant", "content": said.strip("\n")}]


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
    commands = ["/nonsense", "/think hard", "/help", "/think off", "Really?", "/system Be kind.", "/reset", "/exit"]
    converse(chat, io.StringIO("\n".join(["Is it?", "", *commands, "never asked"])), sink)
    shown = sink.getvalue()
    answers = ["[thinking]", "hm", "[answer]", "Yes.", "no such command: /nonsense; /help lists them"]
    assert shown.startswith("\n".join([*answers, "/think on, or /think off", HELP]))
    assert shown.endswith("(thinking is off)\nNo.\n(a new conversation)\n(forgotten)\n")
    assert chat.messages == [{"role": "system", "content": "Be kind."}] and chat.thinking is False


def test_colours_in_a_terminal():
    sink = Terminal()
    show(iter([Piece("hm", True), Piece("", False), Piece("Yes", False)]), sink)
    show(iter([Piece("cut off", True)]), sink)
    assert sink.getvalue() == "\x1b[2mhm\x1b[0mYes\n\x1b[2mcut off\x1b[0m\n"


def test_a_model_cannot_command_the_terminal():
    sink, pipe = Terminal(), io.StringIO()
    for where in (sink, pipe):
        show(iter([Piece("a\x1b[2J\n\tb\x9b", False)]), where)
    assert sink.getvalue() == "a\ufffd[2J\n\tb\ufffd\n"
    assert pipe.getvalue() == "a\x1b[2J\n\tb\x9b\n"


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
    with pytest.raises(UserError, match="the checkpoint has no chat template"):
        Chat(*tiny(), load_tokenizer(bare), sampling=WARM)


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
    """Ctrl-C at the prompt stays, Ctrl-D leaves."""
    leader, follower = pty.openpty()
    with interruptible():
        command = [sys.executable, "-m", "experiments.chat", f"--checkpoint={checkpoint}"]
        child = subprocess.Popen(command, cwd=ROOT, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    try:
        assert b"/help shows the commands." in read_until(leader, b"> ")
        interrupt(child, leader)
        read_until(leader, b"leaves)\r\n> ")
        os.write(leader, b"\x04")
        assert child.wait(timeout=60) == 0
    finally:
        child.kill()
        child.wait()
        os.close(leader)


@contextlib.contextmanager
def interruptible():
    """Programs started within can be interrupted, even if this one, as pytest's workers do, ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def interrupt(child: subprocess.Popen, descriptor: int) -> None:
    """Interrupts until it is noticed: Python's readline misses one between its prompt and its wait for input."""
    for _ in range(10):
        child.send_signal(signal.SIGINT)
        if select.select([descriptor], [], [], 3)[0]:
            return


def read_until(descriptor: int, mark: bytes) -> bytes:
    seen = b""
    while mark not in seen:
        ready, _, _ = select.select([descriptor], [], [], 60)
        assert ready, f"no {mark} in {seen}"
        seen += os.read(descriptor, 4096)
    return seen
