"""`python -m experiments.data`: what it says of sound files, and every mistake in a line with exit code 2."""

import json

import pytest

from tests.experiments.in_process import run

TURN = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", "reasoning_content": "greet"}]
FILES = {
    "texts.jsonl": [{"text": "abc"}, {"text": "é", "schema": 1}],
    "chats.jsonl": [{"messages": TURN * 2}, {"messages": TURN}],
    "pairs.jsonl": [{"prompt": TURN[:1], "chosen": TURN[1], "rejected": {"role": "assistant", "content": "No"}}],
}


@pytest.fixture
def folder(tmp_path):
    for name, rows in FILES.items():
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "story.txt").write_text("Once upon a time")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("texts.jsonl", "kind jsonl, schema 1: 2 records, 4 characters"),
        ("chats.jsonl", "kind chat, schema 1: 2 records, 6 messages, 3 replies that count"),
        ("pairs.jsonl", "kind preference, schema 1: 1 records, 4 messages of prompts and replies"),
        ("story.txt", "kind text, schema 1: 1 records, 16 characters"),
        ("*.txt", "kind text, schema 1: 1 records, 16 characters"),
    ],
)
def test_sound_files_are_counted(folder, name, words):
    assert run("data", f"--validate={folder / name}") == (0, f"{folder / name}: no mistakes; {words}\n", "")


def test_mistakes_are_told_a_line_each(folder):
    path = folder / "chats.jsonl"
    path.write_text(path.read_text() + '\n{"messages": []}\n{"messages": 3\n' + json.dumps({"messages": TURN}) + "\n[]")
    code, out, err = run("data", f"--validate={path}")
    assert code == 2
    assert err == f"error: {path}: not sound data of kind chat; found 3 mistakes\n"
    assert [line.split(": ")[0] for line in out.splitlines()] == [f"{path}, line {n}" for n in (3, 4, 6)]


def test_at_most_ten_are_told(folder):
    path = folder / "texts.jsonl"
    path.write_text("{}\n" * 50)
    code, out, err = run("data", f"--validate={path}")
    assert (code, out.count("\n")) == (2, 10) and err.endswith("found 10 mistakes or more\n")
    assert out.startswith(f"{path}, line 1: no 'text'; expected")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--validate={d}/none.jsonl"], "{d}/none.jsonl: no file found; expected a file, a directory or a glob"),
        (["--validate={d}/empty.jsonl"], "{d}/empty.jsonl: empty file; expected at least one record"),
        (["--validate={d}/empty.txt", "--kind=text"], "{d}/empty.txt: not sound data of kind text; found 1 mistake"),
        (["--source={d}/latin.txt"], "{d}/latin.txt, line 2: is not UTF-8; found byte 0xe9"),
        (["--source={d}/broken.jsonl"], "{d}/broken.jsonl, line 2: is not JSON; found"),
        (
            ["--source={d}/story.txt", "--length=8", "--too_long=error"],
            "{d}/story.txt: longer than the window; expected",
        ),
        (["--source={d}/chats.jsonl", "--too_long=split"], "impossible too_long; expected trim or drop or error"),
        (["--source={d}/chats.jsonl", "--length=8"], "nothing to train on; found 2 of 2 records dropped"),
        (["--source={d}/story.txt", "--tokenizer={d}"], "{d}: the checkpoint has no tokenizer"),
        (["--source=some", "--kind=python_library"], "no such part of the Python library; expected train or held_out"),
        ([], "not one job; expected --validate=FILE or --source=FILE"),
        (["--validate=a", "--source=b"], "not one job; "),
    ],
)
def test_what_is_not_right_ends_in_a_line(folder, flags, words):
    for name in ("empty.jsonl", "empty.txt"):
        (folder / name).write_text("")
    (folder / "latin.txt").write_bytes("un\ncafé".encode("latin-1"))
    (folder / "broken.jsonl").write_text('{"text": "a"}\n{"text"')
    code, _, err = run("data", *(flag.replace("{d}", str(folder)) for flag in flags))
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert words.replace("{d}", str(folder)) in err


def test_a_preview_shows_what_is_there_and_what_is_learnt(folder):
    code, out, err = run("data", f"--source={folder / 'chats.jsonl'}", "--length=200", "--show=1")
    assert (code, err) == (0, "")
    figures = dict(line.rsplit(None, 1) for line in out.partition("\n\n")[0].splitlines())
    assert (figures["records"], figures["windows"], figures["  trimmed"]) == ("2", "1", "0")
    assert "row 0: data:0, data:1; " in out
    replies = "⟦<think>\ngreet\n</think>\n\nHello<|im_end|>⟧"
    # The first conversation's first reply lost its reasoning in the template: it is context, and not learnt.
    assert out.count(replies) == 2 and "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user" in out


def test_a_text_is_learnt_but_for_its_first_token(folder):
    out = run("data", f"--source={folder / 'story.txt'}", "--length=10", "--show=2")[1]
    assert "<bos>⟦Once upon⟧" in out and "n⟦ a time<|im_end|>⟧" in out
