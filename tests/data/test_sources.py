"""Files of a source: which, in which order, and what is wrong with the bad ones, by file and line."""

import json
import os
import sys

import pytest

from tests.data.conversations import byte_level
from zaya_jax.data.dataset import DataConfig, open_dataset
from zaya_jax.data.schema import Text
from zaya_jax.data.sources import SourceConfig, read, source_files
from zaya_jax.errors import UserError

TOKENIZER = byte_level()


def write(directory, files):
    for name, content in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(content, newline="")


def texts(kind, path, **options):
    return [record.text for _, record in read(SourceConfig("s", kind, str(path), **options))]


def refusal(kind, path, **options) -> str:
    with pytest.raises(UserError) as caught:
        open_dataset(DataConfig((SourceConfig("s", kind, str(path), **options),), 64), TOKENIZER)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_directory_is_read_in_the_order_of_bytes_without_what_is_hidden(tmp_path):
    write(tmp_path, {"b.txt": "1", "a/z.py": "2", "B.txt": "3", "a/é.txt": "4", "a/empty.py": ""})
    write(tmp_path, {".hidden/x.txt": "no", ".config": "no"})
    assert texts("text", tmp_path) == ["3", "2", "4", "1"]
    assert texts("text", tmp_path / "**" / "*.txt") == ["3", "4", "1"]


def test_the_order_does_not_depend_on_the_directory(tmp_path, monkeypatch):
    write(tmp_path, {f"f{i}.txt": str(i) for i in range(20)})
    found = source_files(SourceConfig("s", "text", str(tmp_path)))
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top: ((a, b[::-1], c[::-1]) for a, b, c in walk(top)))
    assert source_files(SourceConfig("s", "text", str(tmp_path))) == found


def test_records_of_jsonl_come_line_by_line(tmp_path):
    lines = '\ufeff{"text": "1"}\r\n\n{"text": "2\\n"}'
    write(tmp_path, {"b.jsonl": lines, "a.jsonl": '{"text": "0\u2028"}', "c.json": "[]"})
    found = list(read(SourceConfig("s", "jsonl", str(tmp_path))))
    assert [record for _, record in found] == [Text("0\u2028"), Text("1"), Text("2\n")]
    assert [where for where, _ in found] == [
        f"{tmp_path}/{at}" for at in ("a.jsonl, line 1", "b.jsonl, line 1", "b.jsonl, line 3")
    ]


def test_a_text_keeps_its_line_ends_and_loses_its_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\n")
    assert texts("text", tmp_path / "a.txt") == ["a\r\nb\n"]


def test_another_field(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"content": "x"}')
    assert texts("jsonl", tmp_path / "a.jsonl", text_field="content") == ["x"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"text": "a"}\n\n{"text": ', "line 3: is not JSON; found Expecting value at column 10; write one JSON"),
        ('{"text": "a"}\n7', "line 2: is not a JSON object; expected {...}; found int"),
        (b'{"text": "a"}\n{"text": "\xff"}', "line 2: is not UTF-8; found byte 0xff"),
        ("[" * 100_000, "line 1: is not JSON; found maximum recursion"),
        ('{"text": ' + "9" * 5000 + "}", "line 1: is not JSON; found Exceeds the limit"),
        ('{"text": "a"}\n{"text": ""}', "line 2: text: empty text"),
        ('{"text": "a"}\n{"text": "a", "schema": 3}', "line 2: unknown schema"),
        ("", "a.jsonl: empty file; expected at least one record"),
        ("\n\n", "a.jsonl: empty file; expected at least one record"),
    ],
)
def test_bad_lines_are_named(tmp_path, content, words):
    (tmp_path / "a.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    found = refusal("jsonl", tmp_path / "a.jsonl")
    assert found.startswith(f"{tmp_path}/a.jsonl") and words in found


def test_bad_texts_are_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\nth\xffree")
    assert f"{tmp_path}/a.txt, line 3: is not UTF-8; found byte 0xff" in refusal("text", tmp_path)
    (tmp_path / "a.txt").write_bytes(b"")
    assert f"{tmp_path}/a.txt: empty file" in refusal("text", tmp_path / "a.txt")
    (tmp_path / "b.txt").write_bytes(b"")
    assert f"{tmp_path}: holds nothing to train on" in refusal("text", tmp_path)


def test_files_that_are_not_there(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    assert f"{tmp_path}/b.txt: no file found; expected a file, a directory or a glob" in refusal(
        "text", tmp_path / "b.txt"
    )
    assert "/*.md: no file found" in refusal("text", tmp_path / "*.md")
    assert "no file found; expected files named *.jsonl or *.parquet" in refusal("chat", tmp_path)


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda self: (_ for _ in ()).throw(PermissionError(13, "no way")))
    assert f"{tmp_path}/a.txt: cannot be read; found no way" in refusal("text", tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "a b"}, "source: not a name; expected letters"),
        ({"kind": "csv"}, "source 's': unknown kind; expected text or jsonl"),
        (
            {"too_long": "split"},
            "source 's': impossible too_long; expected trim or drop or error for chat; found 'split'",
        ),
        ({"kind": "text", "too_long": "trim"}, "expected split or drop or error for text; found 'trim'"),
    ],
)
def test_configurations_that_are_not_right(options, words):
    with pytest.raises(UserError) as caught:
        SourceConfig(**{"name": "s", "kind": "chat", "path": "x"} | options)
    assert words in str(caught.value)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    words = "a.parquet: parquet needs pyarrow, which is not installed; run `pip install -e .[parquet]`"
    assert words in refusal("parquet", tmp_path / "a.parquet")


def test_parquet_holds_the_same_records_as_jsonl(tmp_path):
    pyarrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    turn = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "train": True}]
    rows = [{"messages": turn}, {"messages": [{"role": "system", "content": "s"}, *turn], "schema": 1}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    chats = [
        [record for _, record in read(SourceConfig("s", "chat", str(tmp_path / f"a.{end}")))]
        for end in ("jsonl", "parquet")
    ]
    assert chats[0] == chats[1]
    (tmp_path / "a.parquet").write_bytes(b"x" * 100)
    assert "a.parquet: is not a parquet file" in refusal("chat", tmp_path / "a.parquet")
