"""Directories that appear whole or not at all."""

import errno
import os

import pytest

from tests.checkpoint.test_safetensors import refusal
from zaya_jax.checkpoint.files import new_directory, read_json


def fill(target, content="new", fail=None, **options):
    with new_directory(target, **options) as room:
        (room / "file").write_text(content)
        if fail:
            raise fail


def listing(directory):
    return sorted(entry.name for entry in directory.iterdir())


def test_appears_at_the_end(tmp_path):
    target = tmp_path / "a" / "b"
    with new_directory(target) as room:
        (room / "file").write_text("new")
        assert not target.exists() and room.parent == target.parent
    assert (target / "file").read_text() == "new"
    assert listing(target.parent) == ["b"]


@pytest.mark.parametrize("fail", [ValueError("x"), KeyboardInterrupt()])
def test_vanishes_after_a_failure(tmp_path, fail):
    with pytest.raises(type(fail)):
        fill(tmp_path / "a", fail=fail)
    assert listing(tmp_path) == []


def test_a_full_disk_is_told_in_one_line_and_leaves_the_old_one(tmp_path):
    fill(tmp_path / "a", "old")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    message = refusal(fill, tmp_path / "a", fail=full, replaceable=lambda entry: True)
    assert "cannot be written; found No space left on device; nothing was changed there" in message
    assert listing(tmp_path) == ["a"] and (tmp_path / "a" / "file").read_text() == "old"


def test_replaces_only_what_it_may(tmp_path):
    target = tmp_path / "a"
    fill(target, "old")
    assert "is in the way; expected a new or empty directory; found file" in refusal(fill, target)
    assert (target / "file").read_text() == "old"
    fill(target, "new", replaceable=lambda entry: entry.name == "file")
    assert (target / "file").read_text() == "new" and listing(tmp_path) == ["a"]
    (target / "inner").mkdir()
    assert "found inner" in refusal(fill, target, replaceable=lambda entry: True)


def test_takes_the_place_of_an_empty_directory_and_of_no_file(tmp_path):
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "empty")
    (tmp_path / "file").touch()
    assert "found a file" in refusal(fill, tmp_path / "file")


def test_a_link_to_a_directory_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    fill(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "file").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_forbidden_place(tmp_path):
    tmp_path.chmod(0o500)
    assert "Permission denied" in refusal(fill, tmp_path / "a")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[1]", "is not a JSON object; expected {...}; found list"),
        (b'{\n"a": }', "line 2, column 6: is not JSON; found Expecting value"),
        (b"\xff", "is not JSON; expected UTF-8 text"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_json_that_is_not_right(tmp_path, content, expected):
    (tmp_path / "x.json").write_bytes(content)
    message = refusal(read_json, tmp_path / "x.json")
    assert str(tmp_path / "x.json") in message and expected in message


def test_json_that_is_missing(tmp_path):
    assert "x.json: file is missing" in refusal(read_json, tmp_path / "x.json")
    assert "cannot be read; found Is a directory" in refusal(read_json, tmp_path)
