"""The adapter of RLVE, on a checkout that is written here: two tasks under the names and with the methods of RLVE's."""

import textwrap

import pytest

from zaya_jax.environments.failures import Failure
from zaya_jax.environments.workers import WorkerLimits, Workers
from zaya_jax.errors import UserError

ENVIRONMENTS = """
    import copy, random, torch

    class Task:
        passing_reward_threshold = 1.0
        def generator(self, seed, parameter=None, timeout_second=10):
            assert timeout_second > 1000  # the worker's own clock is to end what hangs
            self.seed, self.parameter = seed, copy.deepcopy(parameter)
            torch.manual_seed(seed), torch.cuda.manual_seed_all(seed), random.seed(seed)
            try:
                self._generate()
            except Exception:
                return False
            return self.parameter is not None
        def _generate(self):
            self.parameter["array"] = [random.randint(0, 99) for _ in range(self.parameter["N"])]
        def prompt_generator(self):
            return "Sort " + " ".join(map(str, self.parameter["array"]))
        def verifier(self, output):
            assert output.count("<answer>") == 1
            text = output.removeprefix("<answer>").removesuffix("</answer>")
            self.parameter["seen"] = text
            try:
                given = list(map(int, text.split()))
            except ValueError:
                return {"reward": -1.0, "accuracy": 0, "format_score": 0}
            gold = sorted(self.parameter["array"])
            score = sum(a == b for a, b in zip(gold, given)) / len(gold)
            return {"reward": score, "accuracy": int(score >= 1), "format_score": 1}
        def get_config(self):
            return {"seed": self.seed, "parameter": self.parameter, "passing_reward_threshold": 1.0}
        def set_config(self, config):
            self.seed, self.parameter = config["seed"], config["parameter"]

    class Fussy(Task):
        def _generate(self):
            assert self.seed % 2
            super()._generate()

    class Never(Task):
        def _generate(self):
            raise ValueError

    class Keys(Task):
        def _generate(self):
            super()._generate()
            self.parameter["by number"] = {1: 2}

    identifier2environment = {"Sorting": Task, "Fussy": Fussy, "Never": Never, "Keys": Keys}
"""
CONTROLLERS = """
    class Controller:
        def __init__(self):
            self.N = 3
        def update(self):
            self.N = int(self.N * 1.1 + 1)
        def get_parameter_list(self):
            return [{"N": self.N}]

    identifier2controller = dict.fromkeys(["Sorting", "Fussy", "Never", "Keys"], Controller)
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check out")
    for name, source in (("environments", ENVIRONMENTS), ("parameter_controllers", CONTROLLERS)):
        (folder / "Gym" / name).mkdir(parents=True)
        (folder / "Gym" / name / "__init__.py").write_text(textwrap.dedent(source))
    (folder / "Gym" / "__init__.py").write_text("")
    return folder


@pytest.fixture(scope="module")
def workers():
    with Workers(1, WorkerLimits(seconds=5)) as workers:
        yield workers


@pytest.mark.parametrize(("difficulty", "length"), [(0, 3), (1, 4), (2, 5), (3, 6), (9, 16), (40, 322)])
def test_difficulty_is_the_number_of_updates(checkout, workers, difficulty, length):
    # int(1.1 N + 1) from 3: 4 5 6 7 8 9 10 12 14 ... by hand; the last one by the rule
    by_rule = 3
    for _ in range(difficulty):
        by_rule = int(by_rule * 1.1 + 1)
    problem = workers.generate(f"rlve:Sorting@{checkout}", 5, difficulty).result()
    numbers = problem.prompt.partition("\n")[0].split()[1:]
    assert len(numbers) == by_rule and (difficulty > 3 or by_rule == length)
    assert problem.id == f"rlve:Sorting/{difficulty}/5" and problem.meta["difficulty"] == difficulty
    assert problem == workers.generate(f"rlve:Sorting@{checkout}", 5, difficulty).result()


def test_verdicts_are_right_or_wrong_and_tell_the_score(checkout, workers):
    name = f"rlve:Sorting@{checkout}"
    problem = workers.generate(name, 1, 1).result()
    numbers = sorted(map(int, problem.prompt.partition("\n")[0].split()[1:]))
    half = [numbers[0], numbers[1], -1, -1]
    for response, reward, form, error in [
        (f"<answer>{' '.join(map(str, numbers))}</answer>", 1.0, True, None),
        (f"<answer>1</answer> or <answer>{' '.join(map(str, numbers))}</answer>", 1.0, True, None),
        (f"<answer>{' '.join(map(str, half))}</answer>", 0.0, True, "score 0.5"),
        ("<answer>no numbers</answer>", 0.0, False, "score -1"),
        ("no tags", 0.0, False, "no answer"),
    ]:
        verdict = workers.verify(name, problem, response).result()
        assert (verdict.reward, verdict.correct, verdict.format, verdict.error) == (reward, reward == 1, form, error)


def test_seeds_that_a_task_refuses_give_way_to_others(checkout, workers):
    problems = [workers.generate(f"rlve:Fussy@{checkout}", seed, 0).result() for seed in range(6)]
    seeds = [problem.hidden["config"]["seed"] for problem in problems]
    assert all(seed % 2 for seed in seeds) and seeds[1::2] == [1, 3, 5]
    never = workers.generate(f"rlve:Never@{checkout}", 0, 0).result()
    assert isinstance(never, Failure) and "no problem of difficulty 0 from 8 seeds" in never.detail


def test_what_json_would_change_is_not_handed_out(checkout, workers):
    failure = workers.generate(f"rlve:Keys@{checkout}", 0, 0).result()
    assert isinstance(failure, Failure) and "keys that are no texts" in failure.detail


def test_mistakes_are_named(checkout, workers, tmp_path):
    with pytest.raises(UserError, match=r"no such identifier; expected one of 4; did you mean Sorting"):
        workers.generate(f"rlve:Sortin@{checkout}", 0, 0).result()
    (tmp_path / "Gym" / "environments").mkdir(parents=True)
    (tmp_path / "Gym" / "environments" / "__init__.py").write_text("import surely_not_installed")
    with pytest.raises(UserError, match="another Gym is imported already"):
        workers.generate(f"rlve:Sorting@{tmp_path}", 0, 0).result()
    with Workers(1) as others, pytest.raises(UserError, match="cannot be imported; found no module 'surely_not"):
        others.generate(f"rlve:Sorting@{tmp_path}", 0, 0).result()
