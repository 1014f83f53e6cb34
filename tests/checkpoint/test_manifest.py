"""A manifest that notices a single byte, in itself and in every file that it names."""

import hashlib
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.checkpoint import manifest as manifests
from zaya_jax.checkpoint.manifest import ArrayEntry, Damaged, Manifest, differences, encode, read_manifest, seal, verify
from zaya_jax.errors import UserError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARRAYS = {"params/w": ArrayEntry((2, 3), "bfloat16"), "step": ArrayEntry((), "int32")}


@pytest.fixture
def sealed(tmp_path):
    """A directory of step 7 with three files, and its manifest."""
    directory = tmp_path / "7"
    (directory / "arrays" / "d").mkdir(parents=True)
    (directory / "arrays" / "a").write_bytes(bytes(range(200)))
    (directory / "arrays" / "b").write_bytes(b"")
    (directory / "arrays" / "d" / "a").write_bytes(b"x" * 5000)
    return directory, seal(directory, Manifest(7, {"data": 1}, {"width": 4}, ARRAYS))


def test_sizes_and_hashes_are_those_of_the_files(sealed):
    directory, manifest = sealed
    found = json.loads((directory / "manifest.json").read_text())
    expected = {}
    for folder, _, names in os.walk(directory):
        for name in set(names) - {"manifest.json"}:
            path = os.path.join(folder, name)
            with open(path, "rb") as stream:
                data = stream.read()
            entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            expected[os.path.relpath(path, directory)] = entry
    assert found["files"] == expected
    assert sorted(expected) == ["arrays/a", "arrays/b", "arrays/d/a"]
    verify(directory, manifest)


@given(st.dictionaries(st.text(), JSON, max_size=3), st.none() | st.dictionaries(st.text(), JSON, max_size=3))
def test_what_is_written_is_read(tmp_path_factory, record, fingerprint):
    directory = tmp_path_factory.mktemp("run") / "3"
    directory.mkdir()
    manifest = Manifest(3, record, fingerprint, ARRAYS)
    (directory / "manifest.json").write_bytes(encode(manifest))
    assert read_manifest(directory) == manifest


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()])
def test_a_record_that_is_no_json_is_refused(value):
    with pytest.raises((ValueError, TypeError)):
        encode(Manifest(3, {"x": value}, None, {}))


def test_every_byte_of_the_manifest_counts(sealed):
    directory, _ = sealed
    path = directory / "manifest.json"
    raw = path.read_bytes()
    for position in range(len(raw)):
        path.write_bytes(raw[:position] + bytes([raw[position] ^ 1 << position % 8]) + raw[position + 1 :])
        with pytest.raises(Damaged, match=r"7/manifest\.json: is damaged"):
            read_manifest(directory)
    for changed in (b"", raw[:-1], raw + b"\n", raw + raw, b"[]\n", b"null", b"{}", b"\xff" * 9, b"[" * 100_000):
        path.write_bytes(changed)
        with pytest.raises(Damaged, match="is damaged"):
            read_manifest(directory)
    path.write_bytes(raw)
    assert read_manifest(directory).step == 7


def test_a_blank_elsewhere_counts_although_the_json_is_the_same(sealed):
    directory, _ = sealed
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    with pytest.raises(Damaged, match="its own hash"):
        read_manifest(directory)


def test_another_format_is_refused_by_its_number(sealed, monkeypatch):
    directory, manifest = sealed
    monkeypatch.setattr(manifests, "FORMAT", 2)
    (directory / "manifest.json").write_bytes(encode(manifest))
    monkeypatch.undo()
    with pytest.raises(UserError, match="unknown checkpoint format; expected 1; found 2") as failure:
        read_manifest(directory)
    assert not isinstance(failure.value, Damaged)  # nothing is wrong with it: an older one must not be taken instead


def test_the_manifest_of_another_step_is_refused(sealed):
    directory, _ = sealed
    renamed = directory.rename(directory.with_name("8"))
    with pytest.raises(Damaged, match="expected the manifest of step 8; found the manifest of step 7"):
        read_manifest(renamed)


def test_every_byte_of_a_file_counts(sealed):
    directory, manifest = sealed
    path = directory / "arrays" / "a"
    raw = path.read_bytes()
    for position in range(0, len(raw), 7):
        path.write_bytes(raw[:position] + bytes([raw[position] ^ 16]) + raw[position + 1 :])
        with pytest.raises(Damaged, match=r"arrays/a: is damaged; expected SHA-256 \w{16}"):
            verify(directory, manifest)


def test_several_files_are_counted(sealed):
    directory, manifest = sealed
    (directory / "arrays" / "a").unlink()
    (directory / "arrays" / "b").write_bytes(b"1")
    with pytest.raises(Damaged, match=r"arrays/a: is missing; .*1 more files"):
        verify(directory, manifest)


def test_nothing_is_named_before_the_disk_has_it(tmp_path, monkeypatch):
    events = []

    def fsync(descriptor, real=os.fsync):
        events.append(("sync", os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path)))
        real(descriptor)

    def rename(source, target, real=os.rename):
        events.append(("rename", os.path.relpath(target, tmp_path)))
        real(source, target)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("needs /proc")
    (tmp_path / "7" / "arrays").mkdir(parents=True)
    (tmp_path / "7" / "arrays" / "a").write_bytes(b"1")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    seal(tmp_path / "7", Manifest(7, {}, None, {}))
    named = events.index(("rename", "7/manifest.json"))
    before, after = events[:named], events[named + 1 :]
    assert {name for _, name in before} >= {"7/arrays/a", "7/arrays", "7", "7/.manifest.json.tmp"}
    assert after == [("sync", "7")]


def test_differences_name_nested_keys():
    saved = {"model": {"width": 4, "layers": [1, 2]}, "seed": 1, "old": 0, "same": {}}
    given = {"model": {"width": 8, "layers": [1, 2]}, "seed": True, "new": None, "same": {}}
    assert differences(saved, given) == [
        ("model.width", 4, 8),
        ("seed", 1, True),
        ("old", 0, ...),
        ("new", ..., None),
    ]
    assert differences(saved, saved) == []
