"""`experiments.generate`: prompts in, answers out, mistakes in one line."""

import io
import json
import shutil

import numpy as np
import pytest

from tests.experiments.launching import launch
from tests.sampling.models import forward, log_softmax, tiny, tokenizer
from zaya_jax.errors import UserError
from zaya_jax.sampling.commands import Settings, answer_file, answer_text, one_of
from zaya_jax.sampling.request import Sampling

pytestmark = pytest.mark.usefixtures("quick_programs")

GREEDY = Settings(Sampling(0.0), max_new_tokens=6, dtype="float32")
CHAT = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def prompts(tmp_path):
    """A function that writes lines, given as text or as objects, to a file of prompts."""

    def write(*lines):
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (tmp_path / "prompts.jsonl").write_text(text, encoding="utf-8")
        return tmp_path / "prompts.jsonl"

    return write


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_file_of_prompts(checkpoint, tmp_path, prompts):
    given = [
        {"prompt": "A long prompt, é", "id": 7},
        {"prompt_tokens": [9, 8]},
        "",
        {"messages": CHAT},
        {"prompt": "B"},
    ]
    output = tmp_path / "answers.jsonl"
    flags = [f"--checkpoint={checkpoint}", f"--prompts={prompts(*given)}", f"--output={output}"]
    more = ["--temperature=0", "--max_new_tokens=6", "--batch_size=2", "--dtype=float32"]
    code, out, err = launch("generate", *flags, *more)
    assert (code, out) == (0, ""), err
    assert "4 of 4 prompts" in err and "tokens/s" in err and "left 0:00" in err
    answers = rows(output)
    tok = tokenizer()
    expected = [tok.encode_prompt("A long prompt, é"), [9, 8], tok.encode_chat(CHAT), tok.encode_prompt("B")]
    assert [row["prompt_tokens"] for row in answers] == expected
    assert [row["prompt"] for row in answers] == ["A long prompt, é", None, None, "B"]
    assert answers[0]["id"] == 7 and answers[2]["messages"] == CHAT
    for row in answers:
        last = ["prompt_tokens", "tokens", "text", "logprobs", "logprobs_sampling", "finish_reason"]
        assert list(row)[-6:] == last
        logits, _ = forward(*tiny(), row["prompt_tokens"] + row["tokens"][:-1])
        logits = logits[len(row["prompt_tokens"]) - 1 :]
        assert row["tokens"] == logits.argmax(axis=-1).tolist()
        np.testing.assert_allclose(row["logprobs"], log_softmax(logits).max(axis=-1), atol=1e-5)
        assert row["finish_reason"] == "length" and row["text"] == tok.decode(row["tokens"])


def test_rows_have_seeds_of_their_own(checkpoint, prompts):
    answers = []
    for seed in (1, 1, 2):
        sink = io.StringIO()
        settings = Settings(Sampling(1.0), max_new_tokens=6, dtype="float32", seed=seed)
        answer_file(checkpoint, prompts({"prompt": "A"}, {"prompt": "A"}), None, settings, sink)
        answers += [[json.loads(line)["tokens"] for line in sink.getvalue().splitlines()]]
    assert answers[0] == answers[1] != answers[2]
    assert answers[0][0] != answers[0][1]


def test_a_single_answer_is_streamed_or_written(checkpoint, tmp_path):
    sink = io.StringIO()
    answer_text(checkpoint, "Hello", None, GREEDY, sink)
    answer_text(checkpoint, "Hello", tmp_path / "out.jsonl", GREEDY, sink)
    (row,) = rows(tmp_path / "out.jsonl")
    assert sink.getvalue() == row["text"] + "\n"
    assert row["prompt"] == "Hello" and len(row["tokens"]) == 6


def test_stop_strings_and_bfloat16(checkpoint, prompts):
    sink = io.StringIO()
    answer_file(checkpoint, prompts({"prompt": "Hello"}), None, GREEDY, sink)
    text = json.loads(sink.getvalue())["text"]
    settings = Settings(Sampling(0.0), max_new_tokens=6, dtype="float32", stop_strings=(text[2],))
    sink = io.StringIO()
    answer_file(checkpoint, prompts({"prompt": "Hello"}), None, settings, sink)
    row = json.loads(sink.getvalue())
    assert row["finish_reason"] == "stop" and row["text"] == text[: text.find(text[2])]
    answer_text(checkpoint, "Hello", None, Settings(Sampling(), max_new_tokens=3), sink)


def test_a_checkpoint_without_a_tokenizer_answers_tokens(checkpoint, tmp_path, prompts):
    bare = shutil.copytree(checkpoint, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*", "*.jinja"))
    sink = io.StringIO()
    answer_file(bare, prompts({"prompt_tokens": [9, 8]}), None, GREEDY, sink)
    row = json.loads(sink.getvalue())
    assert row["text"] is None and len(row["tokens"]) == 6
    with pytest.raises(UserError, match=r"prompts\.jsonl, line 1: text needs a tokenizer"):
        answer_file(bare, prompts({"prompt": "A"}), None, GREEDY, sink)


GOOD = {"prompt": "A"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([GOOD, '{"prompt": "B"'], "line 2: is not JSON; found Expecting ',' delimiter at column 15"),
        (["", GOOD, "", "[1]"], "line 4: is not a JSON object; expected {"),
        ([{"promt": "A"}], "prompt, prompt_tokens, messages; found keys ['promt']"),
        ([GOOD, {"prompt": "A", "messages": CHAT}], "line 2: not one prompt; expected one of"),
        ([{"prompt": ""}], "line 1: empty prompt"),
        ([{"prompt_tokens": []}], "line 1: empty prompt"),
        ([{"prompt": 5}], "line 1: not a text; expected a string; found int"),
        ([{"prompt": "\ud800"}], "line 1: the text is not Unicode"),
        ([GOOD, {"prompt_tokens": [1.5]}], "line 2, prompt_tokens: not a token id; expected an integer; found 1.5"),
        ([{"prompt_tokens": [1, 272]}], "line 1, tokens: token id outside of the vocabulary;"),
        ([{"prompt_tokens": [1] * 129}], "expected at most 127 tokens; found 129 tokens; shorten the prompt"),
        ([{"prompt_tokens": [1] * 123}], "found 123 of the prompt + 6 new ones; ask for at most 5"),
        ([{"messages": []}], "line 1: the list of messages is empty"),
        ([{"messages": [{"role": "user"}]}], "line 1: messages[0]: message has no content"),
        ([{"messages": [{"role": "pope", "content": "A"}]}], "line 1: "),
        ([], "prompts.jsonl: no prompts; expected a JSON object a line"),
        (["", "  "], "prompts.jsonl: no prompts"),
        (['{"prompt": NaN'], "line 1: is not JSON"),
        (["[" * 100_000], "line 1: is not JSON"),
    ],
)
def test_mistaken_rows(checkpoint, tmp_path, prompts, lines, message):
    with pytest.raises(UserError) as caught:
        answer_file(checkpoint, prompts(*lines), tmp_path / "out.jsonl", GREEDY, io.StringIO())
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]


def test_bytes_that_are_no_text(checkpoint, tmp_path):
    (tmp_path / "prompts.jsonl").write_bytes(b'{"prompt": "A"}\n{"prompt": "\xff"}\n')
    with pytest.raises(UserError, match="line 2: is not UTF-8; found byte 12 is not"):
        answer_file(checkpoint, tmp_path / "prompts.jsonl", None, GREEDY, io.StringIO())
    with pytest.raises(UserError, match=r"none.jsonl: cannot be read; found No such file or directory"):
        answer_file(checkpoint, tmp_path / "none.jsonl", None, GREEDY, io.StringIO())


def test_messages_need_a_chat_template(checkpoint, tmp_path, prompts):
    bare = shutil.copytree(checkpoint, tmp_path / "bare", ignore=shutil.ignore_patterns("*.jinja"))
    with pytest.raises(UserError, match=r"line 1: .*: the checkpoint has no chat template"):
        answer_file(bare, prompts({"messages": CHAT}), None, GREEDY, io.StringIO())


def test_a_mistaken_flag_is_one_line_and_exit_code_2(checkpoint):
    unclear = "what to continue is not clear; expected one of --prompt and --prompts"
    assert launch("generate", f"--checkpoint={checkpoint}") == (2, "", f"error: {unclear}; found none\n")
    with pytest.raises(UserError, match=f"{unclear}; found both"):
        one_of("A", "b.jsonl")


def test_the_output_needs_a_directory(checkpoint, tmp_path):
    create = "expected the directory of the output; create it"
    with pytest.raises(UserError, match=f"nowhere: no such directory; {create}"):
        answer_text(checkpoint, "A", tmp_path / "nowhere" / "out.jsonl", GREEDY, io.StringIO())


def test_help_shows_an_example():
    code, out, _ = launch("generate", "--help")
    assert code == 0
    assert 'python -m experiments.generate --checkpoint=DIR --prompt="The capital' in out and "--top_p" in out
