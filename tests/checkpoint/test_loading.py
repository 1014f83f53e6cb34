"""Weights in their final place: the right values, shared memory where possible, nothing that is not a number."""

import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from tests.checkpoint.published import CONFIG, NATIVE_JSON, legacy_tensors, native_tensors, pick, write
from tests.checkpoint.test_safetensors import refusal
from zaya_jax.checkpoint import convert, load_variables, loading, open_checkpoint
from zaya_jax.checkpoint.loading import aligned_empty, check_values
from zaya_jax.errors import UserError
from zaya_jax.model import layout as layouts

TENSORS = native_tensors()


@pytest.fixture(scope="module", params=["native", "legacy"])
def directory(request, tmp_path_factory):
    tensors = TENSORS if request.param == "native" else legacy_tensors(TENSORS)
    return write(tmp_path_factory.mktemp("checkpoint"), tensors, shards=2)


def expected(layout, dtype):
    """The tree that must come out, from the oracle."""

    def one(slot, layer):
        if not slot.has(layer):
            return np.zeros(slot.weight.shape)
        return pick(TENSORS, slot.path, layer, slot.expert)

    def make(slot):
        values = [one(slot, layer) for layer in slot.layers or (0,)]
        value = np.stack(values) if slot.stacked else values[0]
        return np.asarray(value).astype(slot.dtype(dtype))

    return layouts.build(CONFIG, layout, make)


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(np.asarray(ours), theirs)


@pytest.mark.parametrize("layout", ["stacked", "unstacked"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_value_is_in_its_place(directory, layout, dtype):
    assert_same(load_variables(directory, layout, dtype), expected(layout, dtype))


def test_float64(directory, x64):
    assert_same(load_variables(directory, "unstacked", "float64"), expected("unstacked", "float64"))


def test_float64_has_to_be_switched_on(directory):
    assert "64-bit types are switched off; found float64; set JAX_ENABLE_X64=1" in refusal(
        load_variables, directory, "stacked", "float64"
    )


def test_the_layouts_are_one_model(directory):
    stacked = load_variables(directory, "stacked", "float32")
    assert_same(layouts.unstack(CONFIG, stacked), load_variables(directory, "unstacked", "float32"))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_other_stored_types(tmp_path, dtype):
    tensors = native_tensors(dtype=dtype)
    variables = load_variables(write(tmp_path, tensors), "unstacked", "bfloat16")
    found = variables["params"]["layers"][1]["experts"]["down"][2]
    wanted = pick(tensors, "params/layers/experts/down", 1, 2).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(found, wanted)


def test_router_biases_in_bfloat16_become_float32(tmp_path):
    tensors = {name: value.astype(ml_dtypes.bfloat16) for name, value in TENSORS.items()}
    variables = load_variables(write(tmp_path, tensors), "stacked", "bfloat16")
    biases = variables["balance"]["layers"]["block_0"]["router"]["biases"]
    assert biases.dtype == jnp.float32 and biases[1].tolist() == [0.25, -0.125, 0.0625, -1.0]


def test_our_files_are_used_in_place(directory, tmp_path):
    convert(directory, tmp_path / "ours", "native")
    opened = open_checkpoint(tmp_path / "ours")
    variables = load_variables(opened, "unstacked", "bfloat16")
    layer = variables["params"]["layers"][1]
    for array, path, expert in [
        (variables["params"]["embedding"], "params/embedding", None),
        (layer["attention"]["q_proj"], "params/layers/attention/q_proj", None),
        (layer["experts"]["gate_up"][2], "params/layers/experts/gate_up", 2),
        (layer["experts"]["output_scale"], "params/layers/experts/output_scale", None),
    ]:
        view = opened.read(path, 1 if "layers" in path else 0, expert)
        assert array.unsafe_buffer_pointer() == view.ctypes.data
    assert (
        layer["attention"]["temperature"].tolist() == pick(TENSORS, "params/layers/attention/temperature", 1).tolist()
    )


def test_in_place_weights_outlive_the_checkpoint(directory, tmp_path):
    convert(directory, tmp_path / "ours", "native")
    variables = load_variables(tmp_path / "ours", "unstacked", "bfloat16")
    for file in (tmp_path / "ours").iterdir():
        file.unlink()
    np.testing.assert_array_equal(variables["params"]["embedding"], TENSORS["model.embed_tokens.weight"])


def test_own_memory_is_taken_over():
    memory = aligned_empty((3, 5), np.float32)
    assert memory.shape == (3, 5) and memory.ctypes.data % 64 == 0
    assert jax.device_put(memory).unsafe_buffer_pointer() == memory.ctypes.data


def poisoned(directory, name, value=np.nan, place=(1, 2)):
    tensors = dict(TENSORS)
    tensors[name] = tensors[name].copy()
    tensors[name][place[: tensors[name].ndim]] = value
    return write(directory, tensors)


DOWN = "model.layers.1.mlp.experts.down_proj"


@pytest.mark.parametrize("layout", ["stacked", "unstacked"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(tmp_path, layout, value):
    message = refusal(load_variables, poisoned(tmp_path, DOWN, value), layout, "bfloat16")
    assert f"model.safetensors, tensor {DOWN}: weights are not finite; expected numbers; found" in message
    assert "NaN or infinite of 512, the first at [2, 0]" in message and "diverged, or damaged" in message


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.qk_norm.temp", "model.layers.1.mlp.gate.balancing_biases"])
def test_small_weights_are_always_checked(tmp_path, name, monkeypatch):
    monkeypatch.setattr(loading, "SMALL_CHECKPOINT", 0)
    poisoned(tmp_path, name, place=(1,))
    assert f"tensor {name}: weights are not finite" in refusal(load_variables, tmp_path, "unstacked", "bfloat16")


def test_what_is_checked_of_a_large_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "SMALL_CHECKPOINT", 0)
    monkeypatch.setattr(loading, "SMALL", 0)
    poisoned(tmp_path / "theirs", DOWN)
    ours = tmp_path / "ours"
    monkeypatch.setattr("zaya_jax.checkpoint.export.check_values", lambda *_: None)
    convert(tmp_path / "theirs", ours, "native")
    load_variables(ours, "unstacked", "bfloat16")  # mapped only: nobody looks
    for options in ({"check_finite": True}, {"dtype": "float32"}, {"layout": "stacked"}):
        arguments = {"layout": "unstacked", "dtype": "bfloat16"} | options
        assert "not finite" in refusal(load_variables, ours, **arguments)
    load_variables(ours, "stacked", "bfloat16", check_finite=False)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("size", [1, 2**18, 2**18 + 1])
def test_check_values(dtype, size):
    values = np.full(size, ml_dtypes.finfo(dtype).max, dtype)
    check_values(values, "x")
    check_values(-values, "x")
    check_values(np.zeros((0, 3), dtype), "x")
    values[-1] = -np.inf
    assert f"found 1 NaN or infinite of {size}, the first at [{size - 1}]" in refusal(check_values, values, "x")
    check_values(np.ones((4, 6), dtype)[:, 1:3], "x")


def test_a_head_of_its_own_is_refused(tmp_path):
    tensors = dict(TENSORS)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    load_variables(write(tmp_path, tensors), "stacked", "bfloat16")
    tensors["lm_head.weight"][47, 31] += 1
    message = refusal(load_variables, write(tmp_path, tensors), "stacked", "bfloat16")
    assert "tensor lm_head.weight: untied heads are not supported" in message


def test_a_reachable_skip_class_is_told(tmp_path):
    tensors = dict(TENSORS)
    tensors["model.layers.1.mlp.gate.balancing_biases"] = np.array([-0.5, -0.25, -0.75, -1.0], np.float32)
    with pytest.warns(
        UserWarning, match=r"the routers of 1 layers \(1\) can choose the skip class.*'zero'.*'identity'"
    ):
        load_variables(write(tmp_path, tensors), "stacked", "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_variables(write(tmp_path, TENSORS), "stacked", "float32")


def test_shardings_on_one_device(directory):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for layout in ("stacked", "unstacked"):
        loaded = load_variables(directory, layout, "bfloat16", shardings=lambda slot: sharding)
        assert_same(loaded, expected(layout, "bfloat16"))
        assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(loaded))


SHARDED = """
import sys, jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from zaya_jax.checkpoint import load_variables, loading, open_checkpoint

mesh = jax.make_mesh((4, 2), ("a", "b"))
read = []
check = loading.check_values
loading.check_values = lambda values, where: (read.append(values.size), check(values, where))

def sharding(slot):
    names = iter(("a", "b"))
    return NamedSharding(mesh, PartitionSpec(*(next(names, None) if n % 4 == 0 else None for n in slot.shape)))

for layout in ("stacked", "unstacked"):
    read.clear()
    sharded = load_variables(sys.argv[1], layout, "bfloat16", shardings=sharding)
    count, read[:] = sum(read), []
    whole = load_variables(sys.argv[1], layout, "bfloat16")
    assert count == sum(read), "every value is read once, replicas or not"
    for a, b in zip(jax.tree.leaves(sharded), jax.tree.leaves(whole), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))
assert sharded["params"]["embedding"].addressable_shards[0].data.shape == (12, 16)
print("fine")
"""


def test_shardings_on_eight_devices(directory, root, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    done = subprocess.run([sys.executable, "-c", SHARDED, str(directory)], capture_output=True, text=True)
    assert done.returncode == 0 and "fine" in done.stdout, done.stderr


def test_an_error_ends_the_other_threads(tmp_path, monkeypatch):
    write(tmp_path, TENSORS, NATIVE_JSON)

    def fail(*_):
        raise UserError("stop")

    monkeypatch.setattr(loading, "check_values", fail)
    assert refusal(load_variables, tmp_path, "unstacked", "float32") == "stop"
