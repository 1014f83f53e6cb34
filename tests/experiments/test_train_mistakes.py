"""What goes wrong with a run's data, mesh and directory: one line each, exit code 2, and nothing is lost."""

import json

import pytest

from configs.common import as_config
from tests.experiments.in_process import run
from tests.train.models import tiny
from zaya_jax.data.dataset import DataConfig
from zaya_jax.data.sources import SourceConfig
from zaya_jax.train.config import RunConfig

GOOD = {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}
LONG = {"messages": [{"role": "user", "content": "2+2? " * 40}, {"role": "assistant", "content": "4"}]}

# Of ml_collections' way to read a file; where no test runs, Python passes over it.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def lines(path, *records):
    path.write_text("".join(f"{json.dumps(record) if isinstance(record, dict) else record}\n" for record in records))
    return path


@pytest.fixture
def train(tmp_path):
    """Runs the launcher on sources, written as a configuration's file; gives its one line, or its last words."""

    def train(*sources, flags=(), **changes):
        values = {"name": "t", "model": tiny(vocab_size=272), "rows": 2, "steps": 2}
        config = RunConfig(**values | changes, data=DataConfig(sources, length=64))
        file = tmp_path / "config.py"
        values = as_config(config).to_json()
        file.write_text(
            "import json\nimport ml_collections\n\n\n"
            f"def get_config():\n    return ml_collections.ConfigDict(json.loads({values!r}))\n"
        )
        code, out, error = run("train", f"--config={file}", f"--workdir={tmp_path / 'run'}", *flags)
        if code == 0:
            return out.splitlines()[-1]
        assert code == 2 and error.count("\n") == 1 and error.startswith("error: "), error
        return error.strip()

    return train


def test_data_that_are_not_there_or_empty(train, tmp_path):
    assert "no file found" in train(SourceConfig("a", "text", str(tmp_path / "none.txt")))
    (tmp_path / "empty.txt").write_text("")
    assert "empty.txt: empty file" in train(SourceConfig("a", "text", str(tmp_path / "empty.txt")))
    assert not (tmp_path / "run").exists()


def test_data_that_cannot_be_read(train, tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    assert "latin.txt, line 1: is not UTF-8" in train(SourceConfig("a", "text", str(tmp_path / "latin.txt")))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "line, said",
    [
        ('{"messages": [', "chats.jsonl, line 2: is not JSON"),
        ("[]", "chats.jsonl, line 2: is not a JSON object"),
        ({"messages": [GOOD["messages"][0]]}, "chats.jsonl, line 2"),
        ({"text": "x"}, "chats.jsonl, line 2: no 'messages'"),
    ],
)
def test_a_bad_record_is_named_by_its_line(train, tmp_path, line, said):
    path = lines(tmp_path / "chats.jsonl", GOOD, line, GOOD)
    assert said in train(SourceConfig("a", "chat", str(path)))
    assert not (tmp_path / "run").exists()


def test_an_example_that_is_longer_than_the_window(train, tmp_path):
    path = lines(tmp_path / "chats.jsonl", GOOD, LONG)
    error = train(SourceConfig("a", "chat", str(path), too_long="error"))
    assert "chats.jsonl, line 2" in error and "64" in error
    assert not (tmp_path / "run").exists()


def test_weights_that_do_not_add_up(train, tmp_path):
    path = str(lines(tmp_path / "chats.jsonl", GOOD))
    good = SourceConfig("a", "chat", path, weight=0.5), SourceConfig("b", "chat", path, weight=0.5)
    code = as_config(RunConfig("t", tiny(vocab_size=272), DataConfig(good, length=64)))
    values = code.to_dict()
    values["data"]["sources"][1]["weight"] = 0.4
    file = tmp_path / "config.py"
    file.write_text(
        f"import json\nimport ml_collections\n\n\ndef get_config():\n"
        f"    return ml_collections.ConfigDict(json.loads({json.dumps(values)!r}))\n"
    )
    code, _, error = run("train", f"--config={file}", f"--workdir={tmp_path / 'run'}")
    assert code == 2 and error.count("\n") == 1 and "do not add up; expected a sum of 1; found 0.9" in error
    assert not (tmp_path / "run").exists()


def test_a_mesh_that_does_not_fit(train, tmp_path):
    path = str(lines(tmp_path / "chats.jsonl", GOOD))
    error = train(SourceConfig("a", "chat", path), flags=("--config.mesh.fsdp=2",))
    assert "the mesh is larger than the machine" in error
    assert not (tmp_path / "run").exists()


def test_evaluations_that_make_no_sense(train, tmp_path):
    source = SourceConfig("a", "chat", str(lines(tmp_path / "chats.jsonl", GOOD)))
    for flag, said in {"rows=0": "1 or more", "ngram=8": "0 to 7", "batches=-1": "0 or more"}.items():
        name, _, value = flag.partition("=")
        error = train(source, flags=(f"--config.evaluation.{flag}",))
        assert error.endswith(f"evaluation.{name}: out of range; expected {said}; found {value}")
    assert not (tmp_path / "run").exists()


def test_the_directory_of_another_run_shows_what_differs_and_stays_as_it_is(train, tmp_path):
    source = SourceConfig("a", "chat", str(lines(tmp_path / "chats.jsonl", GOOD, GOOD)))
    assert train(source).startswith("done: 2 steps")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    error = train(source, rows=1, flags=("--config.optimizer.learning_rate=0.5",))
    assert "the directory of another run; found optimizer.learning_rate: 0.003 -> 0.5, rows: 2 -> 1" in error
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_tokenizer_that_is_too_large_or_missing(train, tmp_path):
    source = SourceConfig("a", "chat", str(lines(tmp_path / "chats.jsonl", GOOD)))
    assert "model.vocab_size: too small for the tokenizer" in train(source, model=tiny(vocab_size=200))
    assert "tokenizer: no such directory" in train(source, tokenizer=str(tmp_path / "none"))
    assert not (tmp_path / "run").exists()
