"""Everything that a user can get wrong: one line that says where, what was expected and found; exit code 2; no output.

Checkpoints go through `convert`, `inspect` and `score`, tokens through `score`, prompts through `generate`.
"""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from tests.checkpoint.published import LEGACY_JSON, NATIVE_JSON, legacy_tensors, native_tensors, write
from tests.experiments.in_process import run
from tests.experiments.launching import launch, saved
from zaya_jax.checkpoint import write_random_checkpoint
from zaya_jax.model.config import nano
from zaya_jax.text.byte_level import write_tokenizer

TENSORS = native_tensors()
INDEX = "model.safetensors.index.json"
SHARD = "model-00002-of-00002.safetensors"
Q = "model.layers.1.self_attn.qkv_proj.q_proj.weight"
NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A sound checkpoint with a vocabulary of 272, a context of 128, a tokenizer and a template."""
    directory = tmp_path_factory.mktemp("checkpoint") / "sound"
    write_random_checkpoint(directory, dataclasses.replace(nano(), max_position_embeddings=128))
    write_tokenizer(directory)
    return directory


def listing(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def assert_refused(result, *words):
    """One line on stderr with these words, exit code 2, nothing on stdout."""
    code, out, err = result
    assert (code, out) == (2, ""), (code, out, err)
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
    missing = [word for word in words if word not in err]
    assert not missing, (missing, err)


def refuse(tmp_path, name, flags, *words, output):
    """Runs a launcher that has to refuse, and that leaves everything in its folder as it was."""
    before = listing(tmp_path)
    assert_refused(run(name, *flags, f"--output={tmp_path / output}"), *words)
    assert listing(tmp_path) == before and not (tmp_path / output).exists()


def shards(directory, tensors=TENSORS, **weight_map):
    """A checkpoint of two shards whose index says something else about some tensors."""
    write(directory, tensors, shards=2)
    index = json.loads((directory / INDEX).read_text())
    index["weight_map"] |= weight_map
    (directory / INDEX).write_text(json.dumps(index))
    return directory


def truncated(directory):
    shards(directory)
    content = (directory / SHARD).read_bytes()
    (directory / SHARD).write_bytes(content[:-100])
    return directory


def changed(name, value):
    return TENSORS | {name: value}


def without(name):
    return {key: value for key, value in TENSORS.items() if key != name}


def with_nan(name):
    values = TENSORS[name].copy()
    values.flat[3] = np.nan
    return changed(name, values)


CHECKPOINTS = {
    "missing tensor": (
        lambda d: write(d, without(NORM)),
        ["{d}: the tensors are not those", "expected 67 tensors; found 66: 1 missing", NORM, "export the checkpoint"],
    ),
    "extra tensor": (
        lambda d: write(d, changed("model.layers.0.mlp.gate.router_states_scale", np.zeros(8, np.float32))),
        ["{d}: ", "expected 67 tensors; found 68: 1 unexpected (model.layers.0.mlp.gate.router_states_scale)"],
    ),
    "misshapen tensor": (
        lambda d: write(d, changed(Q, TENSORS[Q][:-1])),
        ["{d}: ", f"found 67: 1 misshapen ({Q}: [31, 32] instead of [32, 32])", "download or export"],
    ),
    "truncated shard": (truncated, ["{d}/" + SHARD, "file is truncated; expected", " bytes; found ", "download"]),
    "absent shard": (
        lambda d: shards(d, **{Q: "model-00003-of-00002.safetensors"}),
        ["{d}/" + INDEX, "key weight_map", "absent", "expected {d}/model-00003-of-", "found no such file; download"],
    ),
    "path traversal": (
        lambda d: shards(d, **{Q: "../../secret.safetensors"}),
        ["{d}/" + INDEX, "key weight_map", "outside", "expected the name", "found '../../secret", "do not use"],
    ),
    "both layouts": (
        lambda d: write(d, TENSORS | legacy_tensors(TENSORS), NATIVE_JSON),
        ["{d}: both layouts at once; expected native or legacy; found model.layers.0.mlp", "zaya_block", "download"],
    ),
    "wrong dtype": (
        lambda d: write(d, changed(Q, TENSORS[Q].astype(np.int8))),
        ["{d}/model.safetensors, tensor " + Q, "dtype; expected BF16, F16, F32; found I8; quantized"],
    ),
    "NaN": (
        lambda d: write(d, with_nan(Q)),
        ["{d}/model.safetensors, tensor " + Q, "expected numbers; found 1 NaN", "first at [0, 3]", "use another"],
    ),
    "infinite router bias": (
        lambda d: write(d, changed("model.layers.0.mlp.gate.balancing_biases", np.full(4, np.inf, np.float32))),
        ["tensor model.layers.0.mlp.gate.balancing_biases", "expected numbers; found 4 NaN or infinite of 4"],
    ),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_that_is_not_right(tmp_path, kind):
    make, words = CHECKPOINTS[kind]
    directory = make(tmp_path / "source")
    words = [word.replace("{d}", str(directory)) for word in words]
    refuse(tmp_path, "convert", [f"--checkpoint={directory}", "--layout=legacy"], *words, output="target")
    tokens = saved(tmp_path / "tokens.npy", np.ones((1, 4), np.int32))
    flags = [f"--checkpoint={directory}", f"--tokens={tokens}"]
    refuse(tmp_path, "score", flags, *words, output="scores.npy")


@pytest.mark.parametrize(
    ("base", "key", "value", "words"),
    [
        (NATIVE_JSON, "num_experts_per_tok", 2, "expected 1; found 2; this variant"),
        (LEGACY_JSON, "moe_router_topk", 2, "expected 1; found 2; this variant"),
        (NATIVE_JSON, "num_hidden_layers", 10**9, "expected 2 as in the tensors; found 1000000000"),
        (NATIVE_JSON, "hidden_size", -1, "expected 32 as in the tensors; found -1; config.json and the weights"),
        (NATIVE_JSON, "vocab_size", 1.5, "expected 48 as in the tensors; found 1.5"),
        (NATIVE_JSON, "max_position_embeddings", 10**12, "expected an integer from 1 to 268435456; found 10000000"),
        (NATIVE_JSON, "max_position_embeddings", "many", "expected an integer from 1 to 268435456; found 'many'"),
        (NATIVE_JSON, "rms_norm_eps", 10**400, "expected a number; found 1000"),
        (NATIVE_JSON, "rms_norm_eps", 7, "expected a number between 0 and 1; found 7"),
        (NATIVE_JSON, "layer_types", [], "expected 2 entries; found 0"),
        (NATIVE_JSON, "layer_types", ["hybrid", "mamba"], "expected hybrid or hybrid_sliding; found 'mamba'"),
        (LEGACY_JSON, "rope_theta", float("nan"), "expected a number; found nan"),
        (LEGACY_JSON, "rope_theta", -5, "expected a number above 1; found -5.0"),
        (LEGACY_JSON, "swa_layers", [-3, 0, 0, 0], "expected a number of tokens, or 0; found -3"),
        (NATIVE_JSON, "eos_token_id", "</s>", "expected an integer; found ('</s>',)"),
        (NATIVE_JSON, "quantization_config", {"quant_method": "fp8"}, "expected none; found fp8; use the bfloat16"),
        (NATIVE_JSON, "model_type", "zaya1_vl", "ZAYA1-VL checkpoints are not supported; expected zaya; found zaya1"),
    ],
)
def test_a_config_that_is_not_right(tmp_path, base, key, value, words):
    tensors = legacy_tensors(TENSORS) if base is LEGACY_JSON else TENSORS
    directory = write(tmp_path / "source", tensors, base | {key: value})
    ours = {"max_position_embeddings": "max_position", "rms_norm_eps": "eps", "rope_theta": "theta"}.get(key, key)
    found = words.replace("eps", ours)
    refuse(tmp_path, "convert", [f"--checkpoint={directory}"], f"{directory}/config.json, ", found, output="target")
    code, out, err = run("inspect", f"--checkpoint={directory}")
    assert (code, out) == (2, "") and found in err


def test_a_config_that_is_not_json(tmp_path):
    directory = write(tmp_path / "source", TENSORS)
    for content, words in [
        ('{\n"vocab_size": 48,\n}', "config.json, line 3, column 1: is not JSON; found Illegal trailing comma"),
        ("[" * 100_000, "config.json: is not JSON; expected a configuration; found maximum recursion"),
        ('{"vocab_size": ' + "9" * 5000 + "}", "is not JSON; expected a configuration; found Exceeds the limit"),
        ("[]", "config.json: is not a JSON object; expected {...}; found list"),
    ]:
        (directory / "config.json").write_text(content)
        refuse(tmp_path, "convert", [f"--checkpoint={directory}"], words.split("Illegal")[0], output="target")


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (np.ones((2, 3), np.float32), "tokens.npy: not token ids; expected integers; found float32"),
        (
            np.full((2, 3), 272),
            "token id outside of the vocabulary; expected 0 to 271; found 272 at [0, 0]",
        ),
        (np.full((2, 3), -1), "expected 0 to 271; found -1 at [0, 0]"),
        (np.ones((2, 0), np.int32), "tokens.npy: no tokens; expected at least one; found [2, 0]"),
        (np.ones((1, 129), np.int32), "rows longer than the context; expected at most 128 tokens; found 129"),
    ],
)
def test_tokens_that_are_not_right(checkpoint, tmp_path, tokens, words):
    flags = [f"--checkpoint={checkpoint}", f"--tokens={saved(tmp_path / 'tokens.npy', tokens)}"]
    refuse(tmp_path, "score", flags, words, output="scores.npy")


GOOD = '{"prompt": "A"}'


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([GOOD, '{"prompt": "B"'], ["prompts.jsonl, line 2: is not JSON; found", "write one JSON object a line"]),
        ([GOOD, "", "7"], ["prompts.jsonl, line 3: is not a JSON object; expected {", "found int"]),
        ([GOOD, '{"text": "B"}'], ["prompts.jsonl, line 2: not one prompt; expected one of", "found keys ['text']"]),
        (['{"prompt": ""}'], ["prompts.jsonl, line 1: empty prompt; expected at least one character"]),
        (['{"prompt_tokens": []}'], ["prompts.jsonl, line 1: empty prompt; expected at least one token"]),
        (
            [GOOD, '{"prompt_tokens": [1, 2.5]}'],
            ["line 2, prompt_tokens: not a token id; expected an integer; found"],
        ),
        (['{"prompt_tokens": [1, 272]}'], ["line 1, ", "outside of the vocabulary; expected 0 to 271; found 272"]),
        ([json.dumps({"prompt_tokens": [1] * 129})], ["line 1", "context", "expected at most 12", "found 129"]),
        ([json.dumps({"prompt_tokens": [1] * 126})], ["line 1", "context", "expected at most 12", "found 126"]),
    ],
)
def test_prompts_that_are_not_right(checkpoint, tmp_path, lines, words):
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    flags = [f"--checkpoint={checkpoint}", f"--prompts={tmp_path / 'prompts.jsonl'}", "--max_new_tokens=4"]
    refuse(tmp_path, "generate", flags, *words, output="answers.jsonl")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refuses these messages; found roles must alternate"),
        ("a\n{% if %}", "chat_template.jinja, line 2: "),
        ("{{ messages[0].absent.more }}", "uses a value that is not there"),
        ("{{ messages.__class__.mro() }}", "chat_template.jinja, line 1: the chat template was stopped"),
        (None, "the checkpoint has no chat template; expected chat_template.jinja; add one"),
    ],
)
def test_templates_that_are_not_right(checkpoint, tmp_path, template, words):
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    (copy / "chat_template.jinja").unlink()
    if template is not None:
        (copy / "chat_template.jinja").write_text(template)
    (tmp_path / "chats.jsonl").write_text('{"messages": [{"role": "user", "content": "Hi"}]}')
    flags = [f"--checkpoint={copy}", f"--prompts={tmp_path / 'chats.jsonl'}"]
    refuse(tmp_path, "generate", flags, "chats.jsonl, line 1: ", words, output="answers.jsonl")


def test_an_older_output_stays(checkpoint, tmp_path):
    (tmp_path / "prompts.jsonl").write_text("[")
    (tmp_path / "answers.jsonl").write_text("old")
    files = [f"--prompts={tmp_path / 'prompts.jsonl'}", f"--output={tmp_path / 'answers.jsonl'}"]
    assert_refused(run("generate", f"--checkpoint={checkpoint}", *files), "line 1: is not JSON")
    assert (tmp_path / "answers.jsonl").read_text() == "old" and listing(tmp_path) == ["answers.jsonl", "prompts.jsonl"]


def test_as_a_user_runs_it(tmp_path):
    directory = write(tmp_path / "source", without(NORM))
    result = launch("convert", f"--checkpoint={directory}", f"--output={tmp_path / 'target'}")
    assert_refused(result, f"{directory}: the tensors are not those of the architecture; expected 67 tensors")
    assert listing(tmp_path) == ["source", "source/config.json", "source/model.safetensors"]
