"""A run never goes on with answers to something else: problems, options, templates and wordings that were changed."""

import json
import shutil
import types
from pathlib import Path

import pytest

from tests.environments.rows import CHOICE, INTEGER, LATEX, write
from tests.evaluation.searching import WORDING, read
from tests.sampling.scripted import Scripted
from zaya_jax.environments import prompts as templates
from zaya_jax.errors import UserError
from zaya_jax.evaluation import search_run
from zaya_jax.evaluation.evaluate import evaluate
from zaya_jax.evaluation.search_records import CANDIDATES, FINALS, SETTINGS
from zaya_jax.evaluation.search_run import Machine
from zaya_jax.evaluation.wanted import Wanted
from zaya_jax.text.byte_level import IM_END_ID, THINK_END_ID

pytestmark = [
    pytest.mark.usefixtures("quick_programs"),
    pytest.mark.filterwarnings("ignore:math-verify is not installed"),
]

SMALL = Wanted("markovian_rsa", n=2, c=1, t=1, beta=8, tau=4, answer_budget=6)
SINGLE = Wanted("single", n=2, beta=8, answer_budget=6)
ROWS = (INTEGER, CHOICE)
CHANGED = "the problem has changed since it was searched; found another prompt or answer; give the problem as it was"


def says(request):
    """Reasons beyond any budget, then answers."""
    return [*[100] * 600, THINK_END_ID, IM_END_ID]


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    """A model that is a table."""

    def engine(*_, **__):
        model = Scripted(says)
        model.stats = types.SimpleNamespace(decoded_tokens=0)
        return model

    monkeypatch.setattr(search_run, "load", lambda *_, **__: (None, None, None))
    monkeypatch.setattr(search_run, "Engine", engine)


@pytest.fixture
def search(roomy, tmp_path):
    """Searches the rows of a benchmark; gives the directory of its records."""
    (tmp_path / "wording.txt").write_text(WORDING)

    def go(*rows, wanted=SMALL, wording=str(tmp_path / "wording.txt"), **more):
        file = write(tmp_path / "p.jsonl", *rows)
        evaluate(
            Machine(str(roomy), "float32", slots=4, chunk=16), [str(file)], wanted, str(tmp_path / "out"),
            wording=wording, **more,
        )  # fmt: skip
        return tmp_path / "out/p"

    return go


def contents(directory):
    return {file.name: file.read_bytes() for file in directory.iterdir()}


@pytest.mark.parametrize("wanted", [SMALL, SINGLE], ids=["markovian_rsa", "single"])
@pytest.mark.parametrize("change", [{"problem": "What is 6 * 9?"}, {"answer": 54}], ids=["text", "answer"])
def test_a_changed_problem_is_refused(search, wanted, change):
    directory = search(*ROWS, wanted=wanted)
    before = contents(directory)
    with pytest.raises(UserError, match=f"{CANDIDATES}, line 1: problem i: {CHANGED}"):
        search(INTEGER | change, CHOICE, wanted=wanted)
    assert contents(directory) == before
    search(*ROWS, wanted=wanted)
    assert contents(directory) == before


def test_an_unfinished_run_of_a_changed_problem_is_refused(search):
    directory = search(*ROWS)
    whole = (directory / CANDIDATES).read_bytes().splitlines(keepends=True)
    (directory / CANDIDATES).write_bytes(whole[4])
    with pytest.raises(UserError, match=f"{CANDIDATES}, line 1: problem c: {CHANGED}"):
        search(INTEGER, CHOICE | {"problem": "Which is odd?", "answer": 1})
    assert (directory / CANDIDATES).read_bytes() == whole[4]


def test_a_changed_problem_with_a_final_call_alone(search):
    wanted = Wanted("markovian_rsa", n=1, c=1, t=0, beta=8, tau=4, answer_budget=6, final_call=True)
    directory = search(INTEGER, wanted=wanted)
    (directory / CANDIDATES).unlink()
    with pytest.raises(UserError, match=f"{FINALS}, line 1: problem i: {CHANGED}"):
        search(INTEGER | {"answer": 1}, wanted=wanted)


def test_another_order_of_options_is_refused(search):
    directory = search(*ROWS, wanted=SINGLE)
    before = contents(directory)
    with pytest.raises(UserError, match="the directory of another run; found choices_seed: 0 -> 5; choose another"):
        search(*ROWS, wanted=SINGLE, choices_seed=5)
    assert contents(directory) == before


def test_another_wording_in_the_same_file_is_refused(search, tmp_path):
    directory = search(INTEGER)
    before = contents(directory)
    (tmp_path / "wording.txt").write_text(WORDING.replace("Go on.", "Try again."))
    with pytest.raises(UserError, match=r"another run; found wordings\..*wording.txt: [0-9a-f]{12} -> [0-9a-f]{12};"):
        search(INTEGER)
    assert contents(directory) == before
    settings = json.loads((directory / SETTINGS).read_text())
    (directory / SETTINGS).write_text(json.dumps(settings | {"wordings": {}}))
    with pytest.raises(UserError, match=r"problem i: .*; found other words around the attempts"):
        search(INTEGER)


def test_other_templates_are_refused(search, tmp_path):
    own = shutil.copytree(Path(templates.__file__).parent, tmp_path / "own")
    directory = search(INTEGER)
    search(INTEGER, prompts=str(own))  # the same contents
    before = contents(directory)
    (own / "integer.txt").write_text("Do: {{problem}}")
    (own / "latex.txt").write_text("Not in use: {{problem}}")
    with pytest.raises(UserError, match=r"another run; found prompts\.integer: [0-9a-f]{12} -> [0-9a-f]{12}; choose"):
        search(INTEGER, prompts=str(own))
    assert contents(directory) == before


def test_problems_of_a_new_kind_may_be_added(search):
    directory = search(INTEGER, wanted=SINGLE, wording=None)
    one, settings = read(directory / CANDIDATES), json.loads((directory / SETTINGS).read_text())
    assert set(settings["prompts"]) == {"integer"} and set(settings["wordings"]) == {"math"}
    search(INTEGER, LATEX, CHOICE, wanted=SINGLE, wording=None)
    settings = json.loads((directory / SETTINGS).read_text())
    assert [*settings["prompts"], *settings["wordings"]] == ["integer", "choice", "latex", "math", "choice"]
    all_three = read(directory / CANDIDATES)
    assert all_three[:2] == one and len(all_three) == 6
    search(INTEGER, LATEX, CHOICE, wanted=SINGLE, wording=None, limit=1)
    assert read(directory / CANDIDATES) == all_three and len(read(directory / "samples.jsonl")) == 2
    assert json.loads((directory / SETTINGS).read_text()) == settings


def test_single_answers_fill_the_context_whatever_the_limit(search):
    wanted = Wanted("single", n=2, answer_budget=200)
    longer = LATEX | {"id": "longer", "problem": INTEGER["problem"] + " Now."}
    directory = search(INTEGER, longer, wanted=wanted, limit=1)
    beta = json.loads((directory / SETTINGS).read_text())["beta"]
    search(INTEGER, longer, wanted=wanted)
    assert json.loads((directory / SETTINGS).read_text())["beta"] == beta
    longest = max(row["prompt_tokens"] for row in read(directory / CANDIDATES))
    assert longest + beta + 1 + 200 == 512
