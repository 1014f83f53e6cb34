"""Checkpoints of a run: what comes back, what blocks, what is refused, what stays."""

import errno
import logging
import os
import resource
import shutil
import threading
import warnings

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.checkpoint.train_states import answers, assert_same, device_state, left_behind, numpy_state, write
from zaya_jax.checkpoint import train_state
from zaya_jax.checkpoint.manifest import Damaged, read_manifest
from zaya_jax.checkpoint.train_state import Checkpoints, restore, steps
from zaya_jax.errors import UserError

WHOLE = ["arrays", "manifest.json"]


@flax.struct.dataclass
class State:
    """As a training loop has it."""

    params: dict
    optimizer: tuple
    memory: dict


def names(directory):
    return sorted(entry.name for entry in directory.iterdir())


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    with Checkpoints(tmp_path / "run" / "checkpoints", fingerprint={"width": 16}) as checkpoints:
        checkpoints.save(12, device_state(12), {"data": 7, "seeds": (1, 2), "rate": 1e-3})
        state, record, step, skipped = checkpoints.restore(jax.eval_shape(lambda: device_state(0)))
    assert_same(state, 12)
    assert record == {"data": 7, "seeds": [1, 2], "rate": 1e-3}
    assert (step, skipped) == (12, ())
    assert names(tmp_path / "run" / "checkpoints" / "12") == WHOLE


def test_double_precision_comes_back(tmp_path, x64):
    state = {"w": jnp.float64(1) / 3 + jnp.arange(5.0), "n": jnp.int64(2**40)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, state, {})
        found = checkpoints.restore(state).state
    for name, array in state.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_dataclass_and_a_dict_with_its_names_are_one_tree(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, State(**device_state(1)), {})
    assert_same(restore(tmp_path, device_state(0)).state, 1)
    assert isinstance(restore(tmp_path, State(**device_state(0))).state, State)


def test_a_part_can_be_read_alone(tmp_path):
    write(tmp_path, 3)
    wanted = {"params": {"norm": jax.ShapeDtypeStruct((16,), jnp.bfloat16)}}
    found = restore(tmp_path, wanted, partial=True).state
    np.testing.assert_array_equal(found["params"]["norm"], numpy_state(3)["params"]["norm"])
    with pytest.raises(
        UserError, match=r"array memory/none is not what .*expected no such array.*\(and 6 more arrays differ\)"
    ):
        restore(tmp_path, wanted)


def test_saved_arrays_may_be_donated_at_once(tmp_path):
    change = jax.jit(lambda state: jax.tree.map(lambda x: ~x if x.dtype == bool else x + 1, state), donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(4):
            state = device_state(step, rows=4096)
            checkpoints.save(step, state, {})
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a CPU does not reuse memory that is still being written to disk
                jax.block_until_ready(change(state))
            assert_same(checkpoints.restore(device_state(0, rows=4096)).state, step, rows=4096)


def test_saving_returns_before_the_disk_has_it(tmp_path, monkeypatch):
    go, seal = threading.Event(), train_state.seal

    def slow_seal(*arguments):
        assert go.wait(60)
        return seal(*arguments)

    monkeypatch.setattr(train_state, "seal", slow_seal)
    with Checkpoints(tmp_path) as checkpoints:
        record = {"data": 1}
        checkpoints.save(5, device_state(5), record)
        record["data"] = 2  # too late
        assert checkpoints.steps() == []
        assert names(tmp_path) == [".5.new"]
        go.set()
        checkpoints.wait()
        assert checkpoints.steps() == [5]
        assert read_manifest(tmp_path / "5").record == {"data": 1}


def test_the_last_ones_and_multiples_stay(tmp_path):
    write(tmp_path, *range(0, 100, 10), keep_last=2, keep_every=40)
    assert names(tmp_path) == ["0", "40", "80", "90"]


def test_a_step_can_be_chosen_and_replaced(tmp_path):
    write(tmp_path, 1, 2, 3)
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(device_state(0), 2).state, 2)
        assert checkpoints.steps() == [1, 2, 3]
        checkpoints.save(2, device_state(9), {"data": "again"})
    # What was behind the chosen step belongs to a line that was left.
    assert steps(tmp_path) == [1, 2]
    found = restore(tmp_path, device_state(0))
    assert_same(found.state, 9)
    assert found.record == {"data": "again"}


def test_a_run_that_did_not_restore_does_not_write_over_another(tmp_path):
    write(tmp_path, 1, 2)
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(UserError, match="holds the checkpoints of an earlier run"),
    ):
        checkpoints.save(3, device_state(3), {})
    assert names(tmp_path) == ["1", "2"]


def test_a_second_run_is_refused_while_the_first_lives(tmp_path, monkeypatch):
    lock = train_state.step_directories.lock
    monkeypatch.setattr(train_state.step_directories, "lock", lambda directory: lock(directory, patience=0))
    with Checkpoints(tmp_path), pytest.raises(UserError, match="another run is writing its checkpoints here"):
        Checkpoints(tmp_path)
    Checkpoints(tmp_path).close()


def test_reading_leaves_a_run_that_is_writing_alone(tmp_path):
    write(tmp_path, 1)
    (tmp_path / ".2.new").mkdir()
    restore(tmp_path, device_state(0))
    assert names(tmp_path) == [".2.new", "1"]


def test_another_configuration_is_refused_with_the_difference(tmp_path):
    write(tmp_path, 1, fingerprint={"model": {"width": 16, "layers": 2}, "seed": 0})
    other = {"model": {"width": 32, "layers": 2}, "seed": 1}
    match = r"is of another run: model\.width differs; expected 32; found 16 \(and 1 more: seed\)"
    with Checkpoints(tmp_path, fingerprint=other) as checkpoints, pytest.raises(UserError, match=match):
        checkpoints.restore(device_state(0))
    restore(tmp_path, device_state(0))  # nothing to compare


CHANGED_TREES = {
    "shape": (("params", "embedding"), jax.ShapeDtypeStruct((65, 16), jnp.float32), "float32[65,16]", "float32[64,16]"),
    "order": (("params", "embedding"), jax.ShapeDtypeStruct((16, 64), jnp.float32), "float32[16,64]", "float32[64,16]"),
    "rank": (("params", "embedding"), jax.ShapeDtypeStruct((1024,), jnp.float32), "float32[1024]", "float32[64,16]"),
    "type": (("params", "norm"), jax.ShapeDtypeStruct((16,), jnp.float32), "float32[16]", "bfloat16[16]"),
    "new": (("params", "bias"), jax.ShapeDtypeStruct((16,), jnp.float32), "float32[16]", "no such array"),
    "gone": (("params", "norm"), None, "no such array", "bfloat16[16]"),
    "empty": (("memory", "none"), jax.ShapeDtypeStruct((0, 17), jnp.float32), "float32[0,17]", "float32[0,16]"),
}


@pytest.mark.parametrize("case", CHANGED_TREES)
def test_another_tree_is_refused_by_the_arrays_path(tmp_path, case):
    write(tmp_path, 1)
    (group, name), leaf, expected, found = CHANGED_TREES[case]
    abstract = jax.eval_shape(lambda: device_state(0))
    abstract[group][name] = leaf
    with pytest.raises(UserError) as failure:
        restore(tmp_path, abstract, allow_older=True)
    message = str(failure.value)
    assert f"array {group}/{name} is not what this run needs; expected {expected}; found {found};" in message
    assert not isinstance(failure.value, Damaged)


@pytest.mark.parametrize(
    ("state", "record", "said"),
    [
        ({"a": {"b": np.zeros(3)}}, {}, "a/b: only plain jax.Arrays can be saved, found ndarray"),
        ({"a": 3}, {}, "a: only plain"),
        ({"key": lambda: jax.random.key(0)}, {}, "key: only plain"),
        ({"a/b": lambda: jnp.ones(1), "a": {"b": lambda: jnp.ones(1)}}, {}, "same path"),
        ({"a": lambda: jnp.ones(1)}, {"loss": float("nan")}, "record is not JSON"),
        ({"a": lambda: jnp.ones(1)}, {"set": {1}}, "record is not JSON"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path, state, record, said):
    state = jax.tree.map(lambda leaf: leaf() if callable(leaf) else leaf, state)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match=said):
        checkpoints.save(0, state, record)
    assert names(tmp_path) == []


@pytest.mark.parametrize("options", [{"keep_last": 0}, {"keep_every": 0}, {"keep_every": -5}])
def test_keeping_nothing_is_refused(tmp_path, options):
    with pytest.raises(UserError, match=r"keep_\w+: out of range; expected a positive integer"):
        Checkpoints(tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_nothing_to_restore_is_one_line(tmp_path):
    for directory in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="there are no checkpoints"):
            restore(directory, device_state(0))
    write(tmp_path, 1, 2)
    with pytest.raises(UserError, match="there is no such checkpoint; expected one of 1, 2; found 3"):
        restore(tmp_path, device_state(0), 3)


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="cannot hold checkpoints; found File exists"):
        Checkpoints(tmp_path / "x")


def save_with_little_room(send, number, directory):
    """The kernel refuses files of more than 100,000 bytes from the second checkpoint on."""
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(1, device_state(1), {})
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        checkpoints.save(2, device_state(2, rows=4096), {})
        try:
            checkpoints.save(3, device_state(3), {})
        except UserError as failure:
            listing = names(directory)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            checkpoints.save(3, device_state(3), {})  # the run may go on
            checkpoints.wait()
            send((str(failure), listing, checkpoints.steps()))


def test_a_disk_that_refuses_to_write_the_arrays(tmp_path):
    [(message, listing, after)] = answers(save_with_little_room, tmp_path)
    assert "the checkpoint of step 2 could not be written" in message
    assert "older ones are untouched; check free space" in message
    assert "\n" not in message and len(message) < 500
    assert listing == ["1"]
    assert after == [1, 3]
    assert_same(restore(tmp_path, device_state(0), 1).state, 1)
    assert_same(restore(tmp_path, device_state(0), 3).state, 3)


@pytest.mark.parametrize("call", ["fsync", "mkdir", "rename"])
def test_a_full_disk_at_any_later_call(tmp_path, monkeypatch, call):
    real, count = getattr(os, call), 0

    def full_after(room):
        def refuse(path, *arguments, **options):
            nonlocal count
            count += 1
            if count > room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            return real(path, *arguments, **options)

        return refuse

    for room in range(40):
        directory, count = tmp_path / str(room), 0
        write(directory, 1)
        with Checkpoints(directory) as checkpoints, monkeypatch.context() as patch:
            checkpoints.restore(device_state(0))
            count = 0
            patch.setattr(os, call, full_after(room))
            try:
                checkpoints.save(2, device_state(2), {})
                checkpoints.wait()
                break  # so much room was enough
            except UserError as failure:
                assert "the checkpoint of step 2 could not be written; found No space left on device" in str(failure)
        # 2: only making its name durable was refused. What orbax's threads wrote later goes at the next start.
        assert set(names(directory)) - {".2.new"} in ({"1"}, {"1", "2"})
        with Checkpoints(directory):
            assert ".2.new" not in names(directory)
        for step in steps(directory):
            assert_same(restore(directory, device_state(0), step).state, step)
        shutil.rmtree(directory)
    assert room > 0
    assert_same(restore(directory, device_state(0)).state, 2)


def test_an_error_of_the_background_is_raised_once_by_whatever_comes_next(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    write(tmp_path, 1)
    for method in (
        lambda checkpoints: checkpoints.save(3, device_state(3), {}),
        lambda checkpoints: checkpoints.restore(device_state(0)),
        Checkpoints.wait,
        Checkpoints.close,
    ):
        checkpoints = Checkpoints(tmp_path)
        checkpoints.restore(device_state(0))
        with monkeypatch.context() as patch:
            patch.setattr(train_state, "seal", fail)
            checkpoints.save(2, device_state(2), {})
            with pytest.raises(UserError, match="step 2 could not be written; found Input/output error"):
                method(checkpoints)
        checkpoints.close()
        assert names(tmp_path) == ["1"]


def test_orbax_says_nothing(tmp_path, caplog, capfd):
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings():
        warnings.simplefilter("error")
        write(tmp_path, 1)
        restore(tmp_path, device_state(0))
    assert [record for record in caplog.records if "orbax" in record.pathname] == []
    assert capfd.readouterr() == ("", "")


def test_a_loop_that_forbids_hidden_transfers_can_save(tmp_path):
    with jax.transfer_guard("disallow_explicit"), Checkpoints(tmp_path) as checkpoints:
        with jax.transfer_guard("allow"):
            state = device_state(1)
        checkpoints.save(1, state, {})
        found = checkpoints.restore(state).state
    assert_same(found, 1)


def test_an_error_in_the_loop_does_not_lose_the_save_before_it(tmp_path):
    with pytest.raises(RuntimeError, match="of the loop"), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, device_state(1), {})
        raise RuntimeError("of the loop")
    assert_same(restore(tmp_path, device_state(0)).state, 1)


def test_no_thread_outlives_its_run(tmp_path):
    before = set(threading.enumerate())
    write(tmp_path, 1, 2)
    assert left_behind(before) == []
