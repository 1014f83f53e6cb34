"""`experiments.score`: files in, a file out, mistakes in one line."""

import numpy as np
import pytest

from tests.experiments.launching import launch, saved
from tests.sampling.models import CONFIG, prompt, tiny
from zaya_jax.errors import UserError
from zaya_jax.sampling.commands import score_file
from zaya_jax.sampling.score import score

pytestmark = pytest.mark.usefixtures("quick_programs")

TOKENS = np.array([prompt(9), prompt(9, 1), prompt(9, 2)], np.int32)
MASK = (np.arange(9) < np.array([9, 3, 5])[:, None]).astype(np.int32)


@pytest.mark.parametrize("kind", ["logits", "logprobs"])
def test_scores(checkpoint, tmp_path, kind):
    output = tmp_path / "out.npy"
    tokens, mask = saved(tmp_path / "tokens.npy", TOKENS), saved(tmp_path / "mask.npy", MASK)
    flags = [f"--checkpoint={checkpoint}", f"--tokens={tokens}", f"--mask={mask}", f"--output={output}"]
    code, out, err = launch("score", *flags, f"--kind={kind}")
    assert (code, out) == (0, ""), err
    assert "3 of 3 rows" in err and "tokens/s" in err
    result = np.load(output)
    assert result.shape == ((3, 9, CONFIG.vocab_size) if kind == "logits" else (3, 8)) and result.dtype == np.float32
    np.testing.assert_allclose(result, score(*tiny(), TOKENS, MASK, kind=kind), atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.npy", "out.npy", "tokens.npy"]


def test_without_mask_in_bfloat16_and_with_a_single_column(checkpoint, tmp_path):
    tokens = saved(tmp_path / "tokens.npy", TOKENS)
    score_file(checkpoint, tokens, None, tmp_path / "a.npy", kind="logprobs", dtype="bfloat16")
    exact = score(*tiny(), TOKENS, kind="logprobs")
    assert 0 < np.abs(np.load(tmp_path / "a.npy") - exact).max() < 2
    one = saved(tmp_path / "one.npy", TOKENS[:, :1])
    score_file(checkpoint, one, None, tmp_path / "b.npy", kind="logprobs", dtype="float32")
    assert np.load(tmp_path / "b.npy").shape == (3, 0)


@pytest.fixture
def files(tmp_path):
    """Files that are wrong in one way each."""
    tokens = tmp_path / "tokens.npy"
    saved(tokens, TOKENS)
    saved(tmp_path / "floats.npy", TOKENS.astype(np.float32))
    saved(tmp_path / "flat.npy", TOKENS[0])
    saved(tmp_path / "large.npy", TOKENS + 260)
    saved(tmp_path / "empty.npy", TOKENS[:, :0])
    saved(tmp_path / "long.npy", np.zeros((1, 129), np.int32))
    saved(tmp_path / "mask.npy", MASK[:, 1:])
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "short.npy").write_bytes(tokens.read_bytes()[:-5])
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    return tmp_path


@pytest.mark.parametrize(
    ("tokens", "mask", "message"),
    [
        ("floats.npy", None, "floats.npy: not token ids; expected integers; found float32"),
        ("flat.npy", None, "flat.npy: wrong number of dimensions; expected [rows, tokens]; found [9]"),
        ("large.npy", None, "large.npy: token id outside of the vocabulary; expected 0 to 271; found"),
        ("empty.npy", None, "empty.npy: no tokens; expected at least one; found [3, 0]"),
        ("long.npy", None, "long.npy: rows longer than the context; expected at most 128 tokens; found 129"),
        ("tokens.npy", "mask.npy", "mask.npy: wrong shape; expected [3, 9]; found [3, 8]"),
        ("missing.npy", None, "missing.npy: cannot be read; found No such file or directory"),
        ("text.npy", None, "text.npy: is not an array; expected a .npy file"),
        ("short.npy", None, "short.npy: is not an array; expected a .npy file"),
        ("objects.npy", None, "objects.npy: is not an array; expected a .npy file"),
    ],
)
def test_mistakes_in_files(checkpoint, files, tokens, mask, message):
    old = saved(files / "out.npy", TOKENS)
    before = sorted(files.iterdir()), old.read_bytes()
    with pytest.raises(UserError) as caught:
        score_file(checkpoint, files / tokens, mask and files / mask, old, kind="logits", dtype="float32")
    assert message in str(caught.value)
    assert (sorted(files.iterdir()), old.read_bytes()) == before


def test_the_output_needs_a_directory(checkpoint, files):
    for output, message in [("nowhere/out.npy", "nowhere: no such directory"), (".", "is a directory")]:
        with pytest.raises(UserError, match=message):
            score_file(checkpoint, files / "tokens.npy", None, files / output, kind="logits", dtype="float32")


def test_a_failure_leaves_the_old_output(checkpoint, files, monkeypatch):
    old = saved(files / "out.npy", TOKENS)
    before = sorted(files.iterdir())

    def fails(*_, **__):
        raise RuntimeError("the work failed")

    monkeypatch.setattr("zaya_jax.sampling.commands.score", fails)
    with pytest.raises(RuntimeError, match="the work failed"):
        score_file(checkpoint, files / "tokens.npy", None, old, kind="logits", dtype="float32")
    np.testing.assert_array_equal(np.load(old), TOKENS)
    assert sorted(files.iterdir()) == before


def test_a_mistake_is_one_line_and_exit_code_2(checkpoint, files):
    flags = [f"--checkpoint={checkpoint}", f"--tokens={files / 'floats.npy'}", f"--output={files / 'out.npy'}"]
    line = f"error: {files / 'floats.npy'}: not token ids; expected integers; found float32\n"
    assert launch("score", *flags) == (2, "", line)


def test_help_shows_an_example():
    code, out, _ = launch("score", "--help")
    assert code == 0
    assert "python -m experiments.score --checkpoint=DIR" in out and "--kind: <logits|logprobs>" in out
