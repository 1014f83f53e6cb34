"""Every kind of damage that we could think of: found before anything is read, and named."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpoint.train_states import assert_same, device_state, numpy_state, write
from zaya_jax.checkpoint.manifest import Damaged
from zaya_jax.checkpoint.train_state import Checkpoints, restore, steps
from zaya_jax.errors import UserError

OLD, NEW = 10, 20


@dataclasses.dataclass(frozen=True)
class Damage:
    """What is done to the directory of the newest checkpoint, and what the message must hold."""

    do: Callable[[Path], object]
    named: str


def data(directory: Path, name: str = "embedding") -> Path:
    """The file that holds an array's bytes."""
    needle = numpy_state(int(directory.name))["params"][name].tobytes()
    [found] = [path for path in directory.rglob("*") if path.is_file() and needle in path.read_bytes()]
    return found


def change(path: Path, function: Callable[[bytes], bytes]) -> None:
    before = path.read_bytes()
    path.write_bytes(function(before))
    assert path.read_bytes() != before


def flip(path: Path, position: int, mask: int = 1) -> None:
    def flipped(raw: bytes) -> bytes:
        raw = bytearray(raw)
        raw[position] ^= mask
        return bytes(raw)

    change(path, flipped)


def flip_in_array(directory: Path) -> None:
    needle = numpy_state(NEW)["params"]["embedding"].tobytes()
    flip(data(directory), data(directory).read_bytes().index(needle) + len(needle) // 2)


def swap_arrays(directory: Path) -> None:
    """Two arrays of equal shape and type trade their bytes."""
    arrays = [numpy_state(NEW)["params"][name].tobytes() for name in ("embedding", "twin")]
    held = {path: path.read_bytes() for path in {data(directory), data(directory, "twin")}}
    for path, raw in held.items():
        path.write_bytes(raw.replace(arrays[0], b"\0mark").replace(arrays[1], arrays[0]).replace(b"\0mark", arrays[1]))


def swap_files(directory: Path) -> None:
    first, second = data(directory), directory / "arrays" / "_METADATA"
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


def other(directory: Path) -> Path:
    return directory.with_name(str(OLD))


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace(directory: Path, part: str) -> None:
    shutil.rmtree(directory / part)
    shutil.copytree(other(directory) / part, directory / part)


def becomes(directory: Path, source: Path) -> None:
    shutil.rmtree(directory)
    shutil.copytree(source, directory)


def zeroed(raw: bytes) -> bytes:
    return raw[:1024] + bytes(2048) + raw[3072:]


DAMAGE = {
    "first byte of the data": Damage(lambda d: flip(data(d), 0), "arrays/ocdbt"),
    "last byte of the data": Damage(lambda d: flip(data(d), -1, 128), "arrays/ocdbt"),
    "a byte inside an array": Damage(flip_in_array, "arrays/ocdbt"),
    "a page of zeros in the data": Damage(lambda d: change(data(d), zeroed), "arrays/ocdbt"),
    "orbax's tree": Damage(lambda d: flip(d / "arrays/_METADATA", 40), "arrays/_METADATA"),
    "orbax's commit": Damage(lambda d: flip(d / "arrays/_CHECKPOINT_METADATA", 9), "arrays/_CHECKPOINT_METADATA"),
    "orbax's array metadata": Damage(lambda d: flip(d / "arrays/array_metadatas/process_0", 9), "metadatas/process_0"),
    "the database's root": Damage(lambda d: flip(d / "arrays/manifest.ocdbt", 50), "arrays/manifest.ocdbt"),
    "the database's tree": Damage(lambda d: flip(next((d / "arrays/d").iterdir()), 60), "arrays/d/"),
    "the manifest's record": Damage(
        lambda d: change(d / "manifest.json", lambda raw: raw.replace(b'"data": 200', b'"data": 201')), "manifest.json"
    ),
    "the manifest's hash of a file": Damage(
        lambda d: change(d / "manifest.json", lambda raw: raw.replace(b'"sha256": "', b'"sha256": "0', 1)),
        "manifest.json",
    ),
    "the manifest's format": Damage(
        lambda d: change(d / "manifest.json", lambda raw: raw.replace(b'"format": 1', b'"format": 3')), "manifest.json"
    ),
    "the manifest cut": Damage(lambda d: change(d / "manifest.json", lambda raw: raw[:-40]), "manifest.json"),
    "the manifest empty": Damage(lambda d: (d / "manifest.json").write_bytes(b""), "manifest.json"),
    "the manifest missing": Damage(lambda d: (d / "manifest.json").unlink(), "manifest.json: is missing"),
    "the manifest of another step": Damage(
        lambda d: shutil.copy(other(d) / "manifest.json", d), "expected the manifest of step 20; found"
    ),
    "data cut by a byte": Damage(lambda d: change(data(d), lambda raw: raw[:-1]), "bytes; found"),
    "data longer by a byte": Damage(lambda d: change(data(d), lambda raw: raw + b"\0"), "bytes; found"),
    "data empty": Damage(lambda d: change(data(d), lambda raw: b""), "found 0 bytes"),
    "data missing": Damage(lambda d: data(d).unlink(), "is missing; expected a file of"),
    "data renamed": Damage(lambda d: data(d).rename(data(d).with_suffix(".bak")), "is missing"),
    "data replaced by a directory": Damage(lambda d: replace_by_directory(data(d)), "something that is no file"),
    "two arrays swapped": Damage(swap_arrays, "arrays/ocdbt"),
    "two files swapped": Damage(swap_files, "1 more files"),
    "data of another step": Damage(lambda d: shutil.copy(data(other(d)), data(d)), "arrays/ocdbt"),
    "all arrays of another step": Damage(lambda d: replace(d, "arrays"), "arrays/"),
    "all arrays missing": Damage(lambda d: shutil.rmtree(d / "arrays"), "is missing"),
    "a process's part missing": Damage(lambda d: shutil.rmtree(d / "arrays/ocdbt.process_0"), "arrays/ocdbt.process_0"),
    "everything missing": Damage(lambda d: (shutil.rmtree(d), d.mkdir()), "manifest.json: is missing"),
    "a foreign file among the arrays": Damage(
        lambda d: (d / "arrays/d/ffff").write_bytes(b"x"), "arrays/d/ffff: is no part of the checkpoint"
    ),
    "a foreign file beside the manifest": Damage(
        lambda d: (d / "notes.txt").write_text("x"), "notes.txt: is no part of the checkpoint"
    ),
    "another step's directory renamed": Damage(
        lambda d: becomes(d, other(d)), "expected the manifest of step 20; found the manifest of step 10"
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two whole checkpoints; to be copied."""
    directory = tmp_path_factory.mktemp("whole") / "checkpoints"
    write(directory, OLD, NEW)
    return directory


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "checkpoints")


def test_a_copy_is_whole_and_there_are_twenty_kinds(copied):
    assert_same(restore(copied, device_state(0)).state, NEW)
    assert len(DAMAGE) >= 20


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_named(copied, kind):
    damage = DAMAGE[kind]
    damage.do(copied / str(NEW))
    with pytest.raises(Damaged) as failure:
        restore(copied, device_state(0))
    message = str(failure.value)
    assert damage.named in message
    assert f"{copied}/{NEW}/" in message
    assert "--allow_older goes on from the newest undamaged one" in message
    assert "\n" not in message
    with pytest.raises(Damaged, match="choose another step"):  # who asks for a step gets that step or none
        restore(copied, device_state(0), NEW, allow_older=True)
    found = restore(copied, device_state(0), allow_older=True)
    assert_same(found.state, OLD)
    assert (found.step, found.record) == (OLD, {"data": 10 * OLD})
    assert len(found.skipped) == 1 and damage.named in found.skipped[0]


def test_a_damaged_one_gives_way_when_its_step_is_saved_again(copied):
    flip_in_array(copied / str(NEW))
    with Checkpoints(copied) as checkpoints:
        checkpoints.restore(device_state(0), allow_older=True)
        assert steps(copied) == [OLD, NEW]  # for whoever wants to look at it
        checkpoints.save(NEW, device_state(NEW), {})
    assert_same(restore(copied, device_state(0)).state, NEW)


def test_all_damaged_is_one_line(copied):
    for step in (OLD, NEW):
        (copied / str(step) / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"no undamaged checkpoint is left; found .*/20/manifest.*\| .*/10/manifest"):
        restore(copied, device_state(0), allow_older=True)


def test_the_only_one_damaged_has_no_advice(copied):
    shutil.rmtree(copied / str(OLD))
    flip_in_array(copied / str(NEW))
    with pytest.raises(Damaged) as failure:
        restore(copied, device_state(0))
    assert "allow_older" not in str(failure.value)


def test_an_unknown_format_is_not_passed_over(copied, monkeypatch):
    from zaya_jax.checkpoint import manifest

    newest = copied / str(NEW)
    entry = manifest.read_manifest(newest)
    monkeypatch.setattr(manifest, "FORMAT", 99)
    (newest / "manifest.json").write_bytes(manifest.encode(entry))
    monkeypatch.undo()
    with pytest.raises(UserError, match="unknown checkpoint format; expected 1; found 99; use the version"):
        restore(copied, device_state(0), allow_older=True)
