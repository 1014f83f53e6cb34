"""Adapters to files and back; their names; what is refused."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from tests.model.helpers import ALTERNATING, small
from zaya_jax.checkpoint.adapters import CONFIG_FILE, WEIGHTS_FILE, load_adapters, save_adapters
from zaya_jax.errors import UserError
from zaya_jax.model.lora import LoraConfig, build_lora

CONFIG = small(ALTERNATING)
LORA = LoraConfig(2, 3.0, ("attention", "experts/down"))


def adapters(config=CONFIG, lora=LORA):
    random = np.random.default_rng(0)
    return build_lora(config, lora, lambda slot: random.standard_normal(slot.shape).astype(np.float32))


@pytest.fixture
def saved(tmp_path):
    save_adapters(tmp_path / "adapters", CONFIG, LORA, adapters(), base="org/model")
    return tmp_path / "adapters"


def test_there_and_back_gives_the_same_bits(saved):
    lora, found = load_adapters(saved, CONFIG)
    assert (lora.rank, lora.alpha) == (2, 3.0)
    assert set(lora.targets) == {
        *(f"attention/{name}" for name in ("q_proj", "k_proj", "v_current", "v_delayed", "o_proj")),
        "experts/down",
    }
    jax.tree.map(np.testing.assert_array_equal, found, adapters())


def test_names_and_shapes_are_those_of_the_docstring(saved):
    """Read by the safetensors library; layer 3 is the second of its kind in the second block."""
    tensors = safetensors.numpy.load_file(saved / WEIGHTS_FILE)
    assert len(tensors) == 4 * 6 * 2
    block = adapters()["layers"]["block_1"]
    names = {
        "self_attn.qkv_proj.q_proj.lora_A.weight": block["attention"]["q_proj"]["a"],
        "self_attn.o_proj.lora_B.weight": block["attention"]["o_proj"]["b"],
        "mlp.experts.down_proj.lora_B.weight": block["experts"]["down"]["b"],
    }
    for name, stacked in names.items():
        np.testing.assert_array_equal(tensors[f"base_model.model.model.layers.3.{name}"], stacked[1])


def test_the_configuration_is_pefts(saved):
    values = json.loads((saved / CONFIG_FILE).read_text())
    assert (values["peft_type"], values["r"], values["lora_alpha"]) == ("LORA", 2, 3.0)
    assert "self_attn.qkv_proj.v_proj_delayed" in values["target_modules"]
    assert values["target_parameters"] == ["mlp.experts.down_proj"]
    assert values["base_model_name_or_path"] == "org/model"


def test_older_adapters_are_replaced_and_other_files_are_not(saved):
    save_adapters(saved, CONFIG, LORA, jax.tree.map(lambda x: 2 * x, adapters()))
    assert {file.name for file in saved.parent.iterdir()} == {"adapters"}
    np.testing.assert_array_equal(
        load_adapters(saved, CONFIG)[1]["layers"]["block_0"]["experts"]["down"]["a"],
        2 * adapters()["layers"]["block_0"]["experts"]["down"]["a"],
    )
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        save_adapters(saved, CONFIG, LORA, adapters())


def test_values_that_are_not_finite_leave_nothing(tmp_path):
    broken = adapters()
    broken["layers"]["block_0"]["experts"]["down"]["b"][0, 1, 2] = np.nan
    with pytest.raises(UserError, match="NaN"):
        save_adapters(tmp_path / "adapters", CONFIG, LORA, broken)
    assert not list(tmp_path.iterdir())


def edit(directory, **values):
    file = directory / CONFIG_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


DAMAGE = {
    "no config": (lambda room: (room / CONFIG_FILE).unlink(), CONFIG, CONFIG_FILE),
    "no weights": (lambda room: (room / WEIGHTS_FILE).unlink(), CONFIG, WEIGHTS_FILE),
    "truncated": (
        lambda room: (room / WEIGHTS_FILE).write_bytes((room / WEIGHTS_FILE).read_bytes()[:-4]),
        CONFIG,
        "truncated",
    ),
    "a rank of text": (lambda room: edit(room, r="2"), CONFIG, "key r"),
    "a rank of its own": (lambda room: edit(room, r=4), CONFIG, r"expected float32 \[4, 32\]"),
    "a stranger's module": (lambda room: edit(room, target_modules=["lm_head"]), CONFIG, "lm_head"),
    "fewer modules": (lambda room: edit(room, target_parameters=[]), CONFIG, "8 unexpected"),
    "fewer layers": (lambda room: None, small(ALTERNATING[:2]), "24 unexpected"),
    "another width": (lambda room: None, small(ALTERNATING, hidden_size=64), r"expected float32 \[2, 64\]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_does_not_fit_is_one_clear_line(saved, damage):
    spoil, config, says = DAMAGE[damage]
    spoil(saved)
    with pytest.raises(UserError, match=says) as caught:
        load_adapters(saved, config)
    assert "\n" not in str(caught.value)
