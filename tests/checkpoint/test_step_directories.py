"""Directories that appear and go whole, whenever the program is killed."""

import fcntl
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.checkpoint import step_directories
from zaya_jax.checkpoint.manifest import Manifest, read_manifest, seal, verify
from zaya_jax.errors import UserError

CHANGES = ("rename", "unlink", "rmdir", "mkdir", "fsync", "open")


class Killed(BaseException):
    """Nobody catches it, and what should run later does not."""


def write(directory, step, version=0):
    new = step_directories.begin(directory, step)
    (new / "arrays").mkdir()
    for name in "abc":
        (new / "arrays" / name).write_text(f"{name} {step} {version}")
    seal(new, Manifest(step, {"version": version}, None, {}))
    step_directories.publish(directory, step)


def whole(directory):
    """{step: version} of all steps, every one of them verified."""
    found = {}
    for step in step_directories.steps(directory):
        manifest = read_manifest(directory / str(step))
        verify(directory / str(step), manifest)
        found[step] = manifest.record["version"]
    return found


def killed_at(number, monkeypatch, action):
    """Runs an action that is killed at its n-th change of the disk; whether it came that far."""
    count = 0

    def counting(real):
        def change(*arguments, **options):
            nonlocal count
            count += 1
            if count > number:
                raise Killed
            return real(*arguments, **options)

        return change

    with monkeypatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, counting(getattr(os, name)))
        try:
            action()
        except Killed:
            return True
    return False


def replace_and_expire(directory):
    write(directory, 20, version=1)
    write(directory, 30)
    step_directories.remove(directory, 10)


def test_a_kill_at_any_change_leaves_whole_checkpoints_and_no_litter(tmp_path, monkeypatch):
    number, seen = 0, set()
    while True:
        directory = tmp_path / str(number)
        directory.mkdir()
        write(directory, 10)
        write(directory, 20)
        killed = killed_at(number, monkeypatch, lambda at=directory: replace_and_expire(at))
        if killed and number % 3 == 0:  # and the next start is killed as well
            killed_at(number % 5, monkeypatch, lambda at=directory: step_directories.clean(at))
        step_directories.clean(directory)
        found = whole(directory)
        assert sorted(entry.name for entry in directory.iterdir()) == sorted(map(str, found))
        assert 20 in found  # in its old or its new version
        assert 10 in found or found == {20: 1, 30: 0}
        seen.add(tuple(found.items()))
        if not killed:
            break
        number += 1
    assert number > 40
    assert seen == {
        ((10, 0), (20, 0)),
        ((10, 0), (20, 1)),
        ((10, 0), (20, 1), (30, 0)),
        ((20, 1), (30, 0)),
    }


def test_only_our_own_names_are_touched(tmp_path):
    foreign = ["notes.txt", "0100", "-1", "1.5", "10.bak", ".10.tmp", ".x.new", "10.new", "latest", ".010.old", "²"]
    for name in foreign:
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    (tmp_path / ".7.new").write_text("a file")
    (tmp_path / ".8.new").mkdir()
    (tmp_path / ".8.old").mkdir()
    write(tmp_path, 9)
    step_directories.clean(tmp_path)
    assert step_directories.steps(tmp_path) == [9]
    assert {entry.name for entry in tmp_path.iterdir()} == {*foreign, "7", ".7.new", "9"}


def test_no_directory_no_steps(tmp_path):
    assert step_directories.steps(tmp_path / "none") == []


@given(st.sets(st.integers(0, 300)), st.integers(1, 5), st.none() | st.integers(1, 60))
def test_the_last_and_every_multiple_stay(steps, keep_last, keep_every):
    gone = set(step_directories.expired(list(steps), keep_last, keep_every))
    for step in steps:
        newer = sum(other > step for other in steps)
        kept = newer < keep_last or (keep_every is not None and step % keep_every == 0)
        assert (step in gone) != kept


def test_a_second_writer_is_refused_until_the_first_ends(tmp_path):
    first = step_directories.lock(tmp_path)
    with pytest.raises(UserError, match="another run is writing its checkpoints here"):
        step_directories.lock(tmp_path, patience=0.1)
    os.close(first)
    os.close(step_directories.lock(tmp_path, patience=0))


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    os.close(step_directories.lock(tmp_path))
