"""Files that the `safetensors` package reads, with data where XLA:CPU can use it in place."""

import json
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from zaya_jax.checkpoint.safetensors import dtype_code, open_directory, read_header
from zaya_jax.checkpoint.writer import TensorSpec, deal, order, split, write_archive, write_file

SHAPES = st.lists(st.integers(0, 40), max_size=3).map(tuple)
DTYPES = st.sampled_from([np.float32, ml_dtypes.bfloat16, np.int8])
TENSORS = st.dictionaries(st.text("abcxyz.", min_size=1), st.tuples(DTYPES, SHAPES), min_size=1, max_size=8)


def specs_of(tensors):
    return [TensorSpec(name, dtype_code(value.dtype), value.shape) for name, value in tensors.items()]


def random_tensors(description):
    rng = np.random.default_rng(0)
    return {name: rng.integers(-9, 9, shape).astype(dtype) for name, (dtype, shape) in description.items()}


@given(TENSORS, st.booleans(), st.integers(1, 9000))
def test_the_library_reads_it(tmp_path_factory, description, aligned, max_shard_size):
    directory, tensors = tmp_path_factory.mktemp("archive"), random_tensors(description)
    files = write_archive(
        directory,
        specs_of(tensors),
        lambda spec: [tensors[spec.name]],
        max_shard_size=max_shard_size,
        aligned=aligned,
        durable=False,
    )
    found = {name: value for file in files for name, value in load_file(file).items()}
    assert set(found) == set(tensors)
    archive = open_directory(directory)
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(archive.read(name), value)


@given(TENSORS)
def test_unaligned_is_what_the_library_would_write(tmp_path_factory, description):
    directory, tensors = tmp_path_factory.mktemp("archive"), random_tensors(description)
    save_file(tensors, directory / "theirs", {"format": "pt"})
    write_file(directory / "ours", specs_of(tensors), lambda spec: [tensors[spec.name]], aligned=False)
    theirs, ours = ((directory / name).read_bytes() for name in ("theirs", "ours"))
    assert ours == theirs


def test_whole_lines_are_aligned_and_used_in_place(tmp_path):
    tensors = {
        "temp": np.ones(2, ml_dtypes.bfloat16),
        "matrix": np.ones((64, 32), ml_dtypes.bfloat16),
        "biases": np.ones(17, np.float32),
        "norm": np.ones(32, np.float32),
    }
    write_archive(tmp_path, specs_of(tensors), lambda spec: [tensors[spec.name]])
    header = read_header(tmp_path / "model.safetensors")
    assert list(header) == ["matrix", "norm", "biases", "temp"]  # odd sizes last, wide types before narrow ones
    assert [info.start % 64 for info in header.values()] == [0, 0, 0, 4]
    archive = open_directory(tmp_path)
    for name in ("matrix", "norm"):
        view = archive.read(name)
        assert jax.device_put(view).unsafe_buffer_pointer() == view.ctypes.data


def test_mapped_weights_survive_donation(tmp_path):
    write_archive(tmp_path, [TensorSpec("a", "F32", (32,))], lambda spec: [np.ones(32, np.float32)])
    view = open_directory(tmp_path).read("a")
    array = jax.device_put(view)
    changed = jax.jit(lambda x: x.at[0].set(7.0), donate_argnums=0)(array)
    assert changed[0] == 7 and view[0] == 1


def test_shards_and_their_index(tmp_path):
    tensors = {name: np.full((10,), i, np.float32) for i, name in enumerate("abcde")}
    write_archive(tmp_path, specs_of(tensors), lambda spec: [tensors[spec.name]], max_shard_size=80)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 200}
    assert index["weight_map"] == {
        "a": "model-00001-of-00003.safetensors",
        "b": "model-00001-of-00003.safetensors",
        "c": "model-00002-of-00003.safetensors",
        "d": "model-00002-of-00003.safetensors",
        "e": "model-00003-of-00003.safetensors",
    }


def test_shares():
    specs = [TensorSpec(str(size), "I8", (size,)) for size in (5, 1, 1, 9, 2, 2)]
    assert [[spec.nbytes for spec in shard] for shard in split(specs, 7)] == [[5, 1, 1], [9], [2, 2]]
    assert [[spec.nbytes for spec in shard] for shard in deal(specs, 2)] == [[5, 1, 1], [9, 2, 2]]
    assert split([], 7) == [[]]


def test_a_tensor_is_asked_for_once_and_held_alone(tmp_path):
    asked, size = [], 2**20

    def chunks(spec):
        asked.append(spec.name)
        return (np.ones(size // 4, np.float32) for _ in range(4))

    specs = [TensorSpec(str(i), "F32", (size,)) for i in range(8)]
    tracemalloc.start()
    write_archive(tmp_path, specs, chunks, durable=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert asked == [str(i) for i in range(8)]
    assert peak < 3 * size  # bytes; a piece has 1 MiB, all of them together 32


@pytest.mark.parametrize(
    ("value", "expected"),
    [(np.ones(3, np.float32), "a: expected 16 bytes for (4,), found 12"), (np.ones(4), "a: expected float32")],
)
def test_other_values_than_declared(tmp_path, value, expected):
    with pytest.raises(ValueError) as caught:
        write_archive(tmp_path, [TensorSpec("a", "F32", (4,))], lambda spec: [value])
    assert expected in str(caught.value)


def test_order_keeps_the_given_one_where_it_can():
    specs = [TensorSpec(name, "BF16", (32,)) for name in ("z", "a", "m")]
    assert order(specs, aligned=True) == specs
