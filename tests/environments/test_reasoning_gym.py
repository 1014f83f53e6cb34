"""The adapter of reasoning-gym, on a stand-in for the package that is written here."""

import sys
import textwrap
import time

import hypothesis
import pytest
from hypothesis import strategies

from zaya_jax.environments.answer_tags import last_answer
from zaya_jax.environments.environment import Problem
from zaya_jax.environments.failures import Failure
from zaya_jax.environments.named import named
from zaya_jax.environments.workers import WorkerLimits, Workers
from zaya_jax.errors import UserError

# What the adapter uses of the package, by its names: a registry, curricula of attributes with levels, scores.
STAND_IN = """
    import dataclasses, random, time

    @dataclasses.dataclass
    class Config:
        seed: int = 0
        size: int = 500
        terms: int = 2
        digits: int = 1

    class Sums:
        def __init__(self, config):
            self.config = config
        def __getitem__(self, index):
            chance = random.Random(self.config.seed + index)
            numbers = tuple(chance.randrange(10 ** self.config.digits) for _ in range(self.config.terms))
            return {"question": " + ".join(map(str, numbers)) + " = ?\\n", "answer": str(sum(numbers)),
                    "metadata": {"numbers": numbers, 1: "a key that is a number"}}
        def score_answer(self, answer, entry):
            assert entry["metadata"]["numbers"].__class__ is tuple and 1 in entry["metadata"]
            int(answer.split()[0])
            gold = entry["answer"]
            return 1.0 if answer == gold else len(gold) / len(answer) if gold in answer else 0.0

    class Long(Sums):
        def __getitem__(self, index):
            return super().__getitem__(index) | {"answer": "7" * 900}

    class Late(Sums):
        def __getitem__(self, index):
            if self.config.seed % 1000 == 7:
                time.sleep(60)
            return super().__getitem__(index)

    class Hostile(Sums):
        scored = []
        def score_answer(self, answer, entry):
            self.scored.append(answer)
            if answer.startswith("write "):
                open(answer.split()[1], "w")
            return float(len(self.scored) == 1)

    class Refusing(Sums):
        def __getitem__(self, index):
            raise ValueError("never")

    @dataclasses.dataclass
    class Attribute:
        name: str
        levels: list

    class Curriculum:
        def __init__(self):
            self.attributes = {"terms": Attribute("terms", [2, 3, 4, 5]), "digits": Attribute("digits", [1, 3])}
            self.levels = {}
        def set_attr_level(self, name, level):
            assert 0 <= level < len(self.attributes[name].levels)
            self.levels[name] = level
        def generate_configuration(self, defaults):
            return Config(**defaults, **{key: self.attributes[key].levels[at] for key, at in self.levels.items()})

    DATASETS = {"sums": (Sums, Config), "flat": (Sums, Config), "late": (Late, Config), "long": (Long, Config),
                "hostile": (Hostile, Config),
                "refusing": (Refusing, Config), "sudoku": (Sums, Config)}
    CURRICULA = {"sums": Curriculum}

    def create_curriculum(name):
        return CURRICULA[name]()

    def create_dataset(name, **arguments):
        return DATASETS[name][0](config=DATASETS[name][1](**arguments))
"""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stand_in")
    (folder / "reasoning_gym").mkdir()
    (folder / "reasoning_gym" / "__init__.py").write_text("")
    (folder / "reasoning_gym" / "factory.py").write_text(textwrap.dedent(STAND_IN))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("reasoning_gym", "reasoning_gym.factory"):
            patch.delitem(sys.modules, name, raising=False)
        patch.syspath_prepend(folder)
        yield
        for name in ("reasoning_gym", "reasoning_gym.factory"):
            sys.modules.pop(name, None)  # the stand-in, which one test imports here


@pytest.fixture(scope="module")
def workers(stand_in):
    with Workers(1, WorkerLimits(seconds=10)) as workers:
        yield workers


def sums(prompt: str) -> list[int]:
    return list(map(int, prompt.partition("=")[0].split("+")))


@pytest.mark.parametrize(("difficulty", "terms", "digits"), [(0, 2, 1), (1, 3, 3), (2, 4, 3), (3, 5, 3), (40, 5, 3)])
def test_every_attribute_is_at_the_difficulty_or_at_its_last_level(workers, difficulty, terms, digits):
    problem = workers.generate("reasoning_gym:sums", 11, difficulty).result()
    numbers = sums(problem.prompt)
    assert len(numbers) == terms and max(numbers) < 10**digits and (digits == 1 or max(numbers) > 9)
    assert problem.hidden["answer"] == str(sum(numbers))
    assert problem.id == f"reasoning_gym:sums/{difficulty}/11"
    assert problem.meta["saturated"] == (difficulty >= 3) and problem.meta["level"] == min(difficulty, 3)
    assert problem.prompt.endswith("\n\nGive the final answer between <answer> and </answer>.")
    assert problem == workers.generate("reasoning_gym:sums", 11, difficulty).result()


def test_a_data_set_without_levels_is_saturated_at_once(workers):
    assert workers.generate("reasoning_gym:flat", 0, 0).result().meta["saturated"]


def test_only_the_last_answer_counts_and_only_alone(workers):
    problem = workers.generate("reasoning_gym:sums", 5, 2).result()
    gold = problem.hidden["answer"]
    for response, correct, form in [
        (f"<answer>{gold}</answer>", True, True),
        (f"so <answer>1</answer>, no: <answer>\n {gold} </answer>.", True, True),
        (f"<answer>{gold}</answer><answer>1</answer>", False, True),
        (f"<answer>{gold} or not</answer>", False, True),
        (f"<answer>junk {gold}</answer>", False, True),  # the scorer raises
        (f"<answer>{gold}</answer> <answer>", False, False),
        (f"<answer>{gold}</answer> </answer>", False, False),
        (gold, False, False),
        ("<answer> </answer>", False, False),
        ("", False, False),
    ]:
        verdict = workers.verify("reasoning_gym:sums", problem, response).result()
        assert (verdict.correct, verdict.format, verdict.reward) == (correct, form, float(correct)), response


def test_a_long_answer_with_something_beside_it_is_wrong_though_its_score_is_near_one(workers):
    problem = workers.generate("reasoning_gym:long", 5, 0).result()
    gold = problem.hidden["answer"]
    assert len(gold) / len(gold + " or") > 0.99
    responses = [f"<answer>{gold}</answer>", f"<answer>{gold} or</answer>"]
    verdicts = [workers.verify("reasoning_gym:long", problem, response).result() for response in responses]
    assert [verdict.correct for verdict in verdicts] == [True, False]


def test_a_seed_that_takes_too_long_gives_way_to_the_next(workers):
    begun = time.monotonic()
    problem = workers.generate("reasoning_gym:late", 1007, 0).result()
    assert isinstance(problem, Problem) and problem.hidden["seed"] != 1007 and time.monotonic() - begun < 8
    gold = problem.hidden["answer"]
    assert workers.verify("reasoning_gym:late", problem, f"<answer>{gold}</answer>").result().correct
    assert workers.generate("reasoning_gym:late", 8, 0).result().hidden["seed"] == 8


def test_a_data_set_that_gives_nothing_is_a_failure(workers):
    result = workers.generate("reasoning_gym:refusing", 0, 0).result()
    assert isinstance(result, Failure) and "no problem from 4 seeds; the last: ValueError: never" in result.detail


def test_nothing_is_scored_outside_of_a_worker(workers):
    problem = workers.generate("reasoning_gym:flat", 0, 0).result()
    environment = named("reasoning_gym:flat")
    with pytest.raises(UserError, match=r"scores in a worker only; verify through zaya_jax\.environments\.workers"):
        environment.verify(problem, "<answer>1</answer>")


def test_a_scorer_is_confined_and_what_it_keeps_is_gone(workers, tmp_path):
    problem = workers.generate("reasoning_gym:hostile", 0, 0).result()
    answers = ["first", f"write {tmp_path / 'new'}", "third"]
    verdicts = [workers.verify("reasoning_gym:hostile", problem, f"<answer>{one}</answer>").result() for one in answers]
    assert [(one.correct, one.error) for one in verdicts] == [
        (True, None),
        (False, "scorer: PermissionError"),
        (True, None),
    ]
    assert not (tmp_path / "new").exists()


def test_a_problem_of_another_version_is_not_scored(workers):
    problem = workers.generate("reasoning_gym:flat", 0, 0).result()
    old = Problem(problem.id, problem.prompt, {**problem.hidden, "version": "0.0.1"}, problem.meta)
    result = workers.verify("reasoning_gym:flat", old, "<answer>1</answer>").result()
    assert isinstance(result, Failure) and "the problem is of reasoning-gym 0.0.1" in result.detail


def test_what_is_denied_or_missing_is_named(stand_in):
    with pytest.raises(UserError, match="sudoku: is not usable for training; found takes minutes"):
        named("reasoning_gym:sudoku")
    with pytest.raises(UserError, match=r"no such data set; .*; did you mean sums"):
        named("reasoning_gym:summs")


TEXTS = strategies.text("a</answer> \n")


@hypothesis.given(before=TEXTS, inside=TEXTS, behind=TEXTS)
def test_what_stands_in_the_last_pair_is_found_whatever_stands_around_it(before, inside, behind):
    hypothesis.assume(not any(tag in text for tag in ("<answer>", "</answer>") for text in (inside, behind)))
    assert last_answer(f"{before}<answer>{inside}</answer>{behind}") == (inside.strip() or None)


def test_the_last_pair_of_tags():
    assert last_answer("<answer>a</answer> b <answer> c\n</answer> d") == "c"
    assert last_answer("<answer>a <answer>b</answer>") == "b"
    for none in (
        "",
        "a",
        "<answer>a",
        "a</answer>",
        "<answer></answer>",
        "</answer><answer>",
        "<answer>a</answer></answer>",
    ):
        assert last_answer(none) is None, none
