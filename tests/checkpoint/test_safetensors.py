"""The reader next to the `safetensors` package, and every way in which a file or an index can be wrong."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from zaya_jax.checkpoint.safetensors import open_directory, read_header
from zaya_jax.errors import UserError

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.int8, np.uint8, np.bool_, np.float64]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=20).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(DTYPES), SHAPES),
    min_size=1,
    max_size=6,
)


def refusal(function, *arguments, **keywords) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    return message


def tensors_of(description):
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 2, shape).astype(dtype) for name, (dtype, shape) in description.items()}


def raw_file(path, header, data=b"", *, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@given(TENSORS)
def test_reads_what_the_library_wrote(tmp_path_factory, description):
    directory, tensors = tmp_path_factory.mktemp("archive"), tensors_of(description)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    archive = open_directory(directory)
    assert set(archive.tensors) == set(tensors)
    for name, value in tensors.items():
        found = archive.read(name)
        assert found.dtype == value.dtype and found.shape == value.shape
        assert found.tobytes() == value.tobytes()
        assert not found.flags.writeable


def test_a_view_outlives_its_archive_and_its_file(tmp_path):
    value = np.arange(1000, dtype=np.float32)
    save_file({"a": value}, tmp_path / "model.safetensors")
    view = open_directory(tmp_path).read("a")
    (tmp_path / "model.safetensors").unlink()
    np.testing.assert_array_equal(view, value)


def test_prefetch_is_only_a_hint(tmp_path):
    save_file({"a": np.ones(10, np.float32)}, tmp_path / "model.safetensors")
    open_directory(tmp_path).prefetch()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "header of absurd length"),
        (b"\x01", "header of absurd length"),
        ((2**40).to_bytes(8, "little") + b"{}", "header of absurd length"),
        ((100).to_bytes(8, "little") + b"{}", "file is truncated; expected 108 bytes; found 10"),
    ],
)
def test_headers_of_absurd_length(tmp_path, content, expected):
    (tmp_path / "x").write_bytes(content)
    message = refusal(read_header, tmp_path / "x")
    assert str(tmp_path / "x") in message and expected in message and "download" in message


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"{not json", "header is not JSON"),
        (b"\xff\xff", "header is not JSON"),
        (b"[" * 100_000, "header is not JSON"),
        ([], "header is not a JSON object"),
        (b'{"a": 1, "a": 2}', "key 'a': stands twice in the header"),
        ({"a": 3}, "tensor 'a': malformed header entry"),
        ({"a": {"dtype": "F32"}}, "tensor 'a': malformed header entry"),
        ({"a": entry(dtype="F31")}, "tensor 'a': unknown dtype"),
        ({"a": entry(dtype=["F32"])}, "tensor 'a': unknown dtype"),
        ({"a": entry(shape=(-2,))}, "tensor 'a': malformed shape"),
        ({"a": entry(shape=(2.0,))}, "tensor 'a': malformed shape"),
        ({"a": entry(shape=[1] * 33)}, "tensor 'a': malformed shape"),
        ({"a": entry(offsets=(8, 0))}, "tensor 'a': malformed data_offsets"),
        ({"a": entry(offsets=(0, 4, 8))}, "tensor 'a': malformed data_offsets"),
        ({"a": entry(shape=(3,))}, "data_offsets do not fit dtype and shape; expected 12 bytes for F32 [3]; found 8"),
        ({"a": entry(shape=(2**62, 2**62))}, "data_offsets do not fit dtype and shape"),
        ({"a": entry(dtype="F4", shape=(1,), offsets=(0, 1))}, "data_offsets do not fit dtype and shape"),
        ({"a": entry(), "b": entry()}, "tensor 'b': overlaps the tensor before it"),
        ({"a": entry(offsets=(4, 12))}, "tensor 'a': leaves a hole before it"),
    ],
)
def test_headers_that_are_not_right(tmp_path, header, expected):
    file = raw_file(tmp_path / "x", header, bytes(8))
    message = refusal(read_header, file)
    assert str(file) in message and expected in message


@pytest.mark.parametrize(("size", "expected"), [(15, "file is truncated"), (17, "data behind the last tensor")])
def test_data_of_the_wrong_size(tmp_path, size, expected):
    header = {"a": entry(), "b": entry(offsets=(8, 16))}
    file = raw_file(tmp_path / "x", header, bytes(size))
    start = 8 + len(json.dumps(header))
    message = refusal(read_header, file)
    assert expected in message and f"expected {start + 16} bytes; found {start + size}" in message
    with pytest.raises(safetensors.SafetensorError):  # the library agrees that it is wrong
        safetensors.safe_open(file, "np")


@given(st.binary(max_size=200))
def test_no_bytes_make_it_stumble(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("garbage") / "x"
    file.write_bytes(content)
    try:
        read_header(file)
    except UserError as error:
        assert str(file) in str(error)


def test_types_without_numpy_are_described_and_not_read(tmp_path):
    raw_file(tmp_path / "model.safetensors", {"a": entry("F8_E4M3", (8,), (0, 8))}, bytes(8))
    archive = open_directory(tmp_path)
    assert archive.tensors["a"].dtype == "F8_E4M3"
    assert "tensor a: cannot be read; expected F64" in refusal(archive.read, "a")


def shards(directory, weight_map=None, **files):
    for name, tensors in files.items():
        save_file(tensors, directory / f"{name}.safetensors")
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return directory


ONE, TWO = np.ones(3, np.float32), np.full(5, 2, np.float32)


def test_shards(tmp_path):
    archive = open_directory(
        shards(tmp_path, {"a": "x.safetensors", "b": "y.safetensors"}, x={"a": ONE}, y={"b": TWO}),
    )
    np.testing.assert_array_equal(archive.read("a"), ONE)
    np.testing.assert_array_equal(archive.read("b"), TWO)
    assert [file.name for file in archive.files] == ["x.safetensors", "y.safetensors"]


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/x.safetensors", "..", "", "a\\b", "x\0"])
def test_an_index_stays_in_its_directory(tmp_path, name):
    (tmp_path / "inside").mkdir()
    save_file({"a": ONE}, tmp_path / "x.safetensors")
    message = refusal(open_directory, shards(tmp_path / "inside", {"a": name}))
    assert "index.json, key weight_map: index points outside of its directory" in message
    assert repr(name) in message


def test_links_stay_in_their_directory(tmp_path):
    save_file({"a": ONE}, tmp_path / "secret")
    for name in ("x.safetensors", "model.safetensors"):
        directory = tmp_path / name
        directory.mkdir()
        (directory / name).symlink_to(tmp_path / "secret")
        if name.startswith("x"):
            shards(directory, {"a": name})
        assert f"{name}: links outside of its directory" in refusal(open_directory, directory)


def test_the_links_of_the_hubs_cache_are_followed(tmp_path):
    snapshot = tmp_path / "models--x" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--x" / "blobs").mkdir()
    save_file({"a": ONE}, tmp_path / "models--x" / "blobs" / "abc")
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    np.testing.assert_array_equal(open_directory(snapshot).read("a"), ONE)


@pytest.mark.parametrize(
    ("weight_map", "expected"),
    [
        ({"a": "x.safetensors", "b": "z.safetensors"}, "key weight_map: index names an absent file; expected"),
        (
            {"a": "x.safetensors", "c": "x.safetensors", "b": "y.safetensors"},
            "tensor is not in its shard; expected 'c'",
        ),
        ({"a": "x.safetensors"}, "tensor 'b': tensor is not in the index; found x.safetensors"),
        ({}, "key weight_map: malformed index"),
        ({"a": 1}, "key weight_map: malformed index"),
        ([], "key weight_map: malformed index"),
    ],
)
def test_indexes_that_are_not_right(tmp_path, weight_map, expected):
    directory = shards(tmp_path, weight_map, x={"a": ONE, "b": TWO}, y={"b": TWO})
    message = refusal(open_directory, directory)
    assert "model.safetensors.index.json" in message and expected in message


def test_a_tensor_in_two_shards(tmp_path):
    directory = shards(tmp_path, {"a": "x.safetensors", "b": "y.safetensors"}, x={"a": ONE}, y={"a": ONE, "b": TWO})
    message = refusal(open_directory, directory)
    assert "tensor 'a': tensor is in two shards; found x.safetensors and y.safetensors" in message


def test_an_index_that_is_not_json(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map":\n {"a" "b"}}')
    assert "index.json, line 2, column 7: is not JSON" in refusal(open_directory, tmp_path)


def test_directories_without_clear_weights(tmp_path):
    assert "no weights; expected model.safetensors" in refusal(open_directory, tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    assert "found pytorch_model.bin" in refusal(open_directory, tmp_path)
    shards(tmp_path, {"a": "x.safetensors"}, x={"a": ONE}, model={"a": ONE})
    assert "are both there" in refusal(open_directory, tmp_path)
    assert "no such directory" in refusal(open_directory, tmp_path / "absent")
