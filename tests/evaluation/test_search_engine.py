"""What a search asks of the machine: one engine, no more room than is needed, and memory for what is still read."""

import dataclasses
import types
import weakref

import pytest

from tests.environments.rows import INTEGER, write
from tests.evaluation.searching import WORDING, read, write_sums
from tests.sampling.models import tokenizer
from tests.sampling.scripted import Scripted
from zaya_jax.evaluation import search_run
from zaya_jax.evaluation.evaluate import evaluate
from zaya_jax.evaluation.search_records import CANDIDATES
from zaya_jax.evaluation.search_run import Machine
from zaya_jax.evaluation.wanted import Wanted
from zaya_jax.text.byte_level import IM_END_ID, THINK_END_ID

pytestmark = pytest.mark.usefixtures("quick_programs")

SMALL = Wanted("markovian_rsa", n=3, c=2, t=2, beta=16, tau=6, answer_budget=12)
METHODS = [
    SMALL,
    dataclasses.replace(SMALL, probe_answers=True, final_call=True),
    dataclasses.replace(SMALL, method="rsa"),
    Wanted("single", n=5, beta=16, answer_budget=12),
    Wanted("delethink", n=3, t=3, beta=16, tau=6, head=3),
]


def says(request):
    """Reasons beyond any budget, then answers."""
    return [*tokenizer().encode("and so on " * 2, special=False)[:16], THINK_END_ID, *b"42", IM_END_ID, *range(64, 96)]


class Watched(Scripted):
    """A model that is a table, and which of the large things it has given away are still there."""

    def __init__(self, asked):
        super().__init__(says)
        self.asked, self.stats, self.given = asked, types.SimpleNamespace(decoded_tokens=0), []
        self.numbers = []

    def step(self):
        assert not self.alive(), "routes"
        deltas = super().step()
        for one in (delta.completion for delta in deltas):
            self.given += [weakref.ref(one.routes_LT), weakref.ref(one.versions_T)]
            self.numbers.append(weakref.ref(one.logprobs_model))
        return deltas

    def alive(self):
        """Those that are to be let go at once."""
        return [given for given in self.given if given() is not None]


@pytest.fixture
def made(monkeypatch):
    """Engines that were made with their options, searches, and all requests."""
    made = types.SimpleNamespace(engines=[], options=[], searches=[], asked=[])

    def engine(*_, **options):
        made.engines.append(Watched(made.asked))
        made.options.append(options)
        return made.engines[-1]

    def run(engine, searches, known):
        made.searches += searches
        return run_searches(engine, searches, known)

    run_searches = search_run.run_searches
    monkeypatch.setattr(search_run, "load", lambda *_, **__: (None, None, None))
    monkeypatch.setattr(search_run, "Engine", engine)
    monkeypatch.setattr(search_run, "run_searches", run)
    return made


@pytest.fixture
def search(roomy, tmp_path):
    def go(*files, wanted=SMALL, output="out"):
        (tmp_path / "wording.txt").write_text(WORDING)
        machine = Machine(str(roomy), "float32", slots=4, chunk=16)
        files = [str(file) for file in files]
        return evaluate(machine, files, wanted, str(tmp_path / output), wording=str(tmp_path / "wording.txt"))

    return go


def test_one_engine_for_all_benchmarks_and_none_for_nothing(search, made, tmp_path):
    short = write_sums(tmp_path / "short.jsonl", "a", "b")
    long = write(tmp_path / "long.jsonl", INTEGER | {"problem": "What is 6 * 7? " * 4})
    search(short, long)
    (options,) = made.options
    most = max(len(one.tokens) + one.max_new_tokens for one in made.asked)
    assert options["capacity"] == most and {one.id.split("/")[0] for one in made.asked} == {"a", "b", "i"}
    assert [one.id.split("/")[0] in "ab" for one in made.asked] == [True] * 18 + [False] * 9, "one after the other"
    search(short, long)
    assert len(made.options) == 1, "nothing is missing"
    candidates = tmp_path / "out/short" / CANDIDATES
    candidates.write_bytes(b"".join(candidates.read_bytes().splitlines(keepends=True)[:-1]))
    search(short, long)
    assert made.options[1] == options, "the same programs, whatever is left"


@pytest.mark.parametrize("wanted", METHODS, ids=str)
def test_the_room_is_what_is_needed(search, made, tmp_path, wanted):
    search(write_sums(tmp_path / "p.jsonl", "a"), wanted=wanted)
    rooms = [len(one.tokens) + one.max_new_tokens for one in made.asked]
    assert made.options[0]["capacity"] == max(rooms)


def test_probes_need_no_more_room(search, made, tmp_path):
    problems = write_sums(tmp_path / "p.jsonl", "a")
    search(problems)
    search(problems, wanted=dataclasses.replace(SMALL, probe_answers=True), output="probed")
    assert made.options[0] == made.options[1]
    assert any(one.id.endswith("/probe") for one in made.asked)


@pytest.mark.parametrize("wanted", METHODS, ids=str)
@pytest.mark.parametrize("kept", [0, 7])
def test_what_is_recorded_is_let_go(search, made, tmp_path, wanted, kept, monkeypatch):
    problems, candidates = write_sums(tmp_path / "p.jsonl", "a", "b", "c"), tmp_path / "out/p" / CANDIDATES
    search(problems, wanted=wanted)
    whole = read(candidates)
    candidates.write_bytes(b"".join(candidates.read_bytes().splitlines(keepends=True)[:kept]))
    made.searches.clear()

    def forget(search, places):
        _forget(search, places)
        for place in search.candidates.keys() & set(places):
            light = search.candidates[place]
            arrays = [value for value in vars(light.completion).values() if hasattr(value, "nbytes")]
            assert max(array.nbytes for array in arrays) <= light.completion.tokens.nbytes
            assert not light.request.tokens

    _forget = search_run._forget
    monkeypatch.setattr(search_run, "_forget", forget)
    search(problems, wanted=wanted)
    assert made.searches and not any(one.candidates for one in made.searches)
    assert not made.engines[-1].alive() and all(given() is None for given in made.engines[-1].numbers)
    assert read(candidates) == whole
