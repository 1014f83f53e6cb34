"""Studies: the plan, and tables and tests against counts made by hand."""

import dataclasses
import importlib
import json

import numpy as np
import pytest

from configs.studies import behavioral, math_code, rlve_gym
from zaya_jax.errors import UserError
from zaya_jax.evaluation.grades import Grade, write_grades
from zaya_jax.evaluation.score import holm, paired_bootstrap
from zaya_jax.rl.study import START, Arm, ProblemGroup, StudyConfig, stages
from zaya_jax.rl.study_curves import curves_of, write_curves
from zaya_jax.rl.study_results import differences, examined, runs, table, write_results
from zaya_jax.train.settings import from_dict

ARMS = (
    Arm("ours", "rl", "configs/rl/rlve_gym.py:initial={initial},seed={seed}", ("--config.loss=clip",)),
    Arm("more", "train", "configs/sft/reasoning.py:initial={initial}", ("--config.data.seed={seed}",)),
)
STUDY = StudyConfig(
    "s", "out/sft/model", ARMS, (0, 5), (("ours", START), ("ours", "more")), samples=2, problems=2, difficulties=(2, 3)
)
PROBLEMS = (("addition-2", "addition/2/1"), ("addition-2", "addition/2/3"), ("addition-3", "addition/3/5"))


def test_the_plan(tmp_path):
    plan = stages(STUDY, tmp_path)
    assert [stage.name for stage in plan] == [
        "start_sampled", "start_greedy",
        "ours_0", "ours_0_sampled", "ours_0_greedy", "more_0", "more_0_sampled", "more_0_greedy",
        "ours_5", "ours_5_sampled", "ours_5_greedy", "more_5", "more_5_sampled", "more_5_greedy",
    ]  # fmt: skip
    by_name = {stage.name: stage for stage in plan}
    assert by_name["ours_5"].module == "experiments.rl"
    assert by_name["ours_5"].arguments == (
        "--config=configs/rl/rlve_gym.py:initial=out/sft/model,seed=5", "--config.loss=clip",
        f"--workdir={tmp_path}/ours_5",
    )  # fmt: skip
    assert by_name["more_5"].module == "experiments.train"
    assert "--config.data.seed=5" in by_name["more_5"].arguments
    sampled, greedy = by_name["ours_5_sampled"], by_name["ours_5_greedy"]
    assert {f"--checkpoint={tmp_path}/ours_5/model", "--n=2", "--temperature=1"} <= set(sampled.arguments)
    assert {f"--checkpoint={tmp_path}/ours_5/model", "--n=1", "--temperature=0"} <= set(greedy.arguments)
    assert "--checkpoint=out/sft/model" in by_name["start_sampled"].arguments
    assert {"--environments=addition", "--difficulties=2,3", "--count=2"} <= set(sampled.arguments)
    assert sampled.products == ("addition-2/grades.jsonl", "addition-3/grades.jsonl")


@pytest.mark.parametrize("module", [behavioral, math_code, rlve_gym])
def test_configurations(module, tmp_path):
    """They are as a command line has them, and every run's configuration takes what it is told."""
    given = "initial=DIR" + (",reward=RM" if module is behavioral else "")
    study = from_dict(StudyConfig, module.get_config(given).to_dict())
    assert len(study.seeds) == 3 and study.problems * len(study.environments) * len(study.difficulties) >= 400
    for stage in stages(study, tmp_path):
        if stage.module in ("experiments.rl", "experiments.train"):
            file, _, argument = stage.arguments[0].removeprefix("--config=").partition(":")
            config = importlib.import_module(file.removesuffix(".py").replace("/", ".")).get_config(argument)
            assert config.initial == "DIR" or config.initial.startswith(str(tmp_path))


def test_an_arm_may_follow_another(tmp_path):
    arms = (*ARMS, Arm("next", "rl", "FILE:initial={initial},seed={seed}", follows="ours"))
    plan = {stage.name: stage for stage in stages(dataclasses.replace(STUDY, arms=arms), tmp_path)}
    assert plan["next_5"].arguments[0] == f"--config=FILE:initial={tmp_path}/ours_5/model,seed=5"
    with pytest.raises(UserError, match="arm next: follows no earlier arm; expected one of none; found ours"):
        dataclasses.replace(STUDY, arms=arms[::-1])


def write(root, name, sampled, greedy):
    """Grades of a run: for each problem which of its samples are right, and whether the greedy answer is."""
    for way, answers in (("sampled", sampled), ("greedy", [[right] for right in greedy])):
        grades = [
            Grade(benchmark, problem, index, "single", 0, bool(right), True, "1", None, None)
            for (benchmark, problem), own in zip(PROBLEMS, answers, strict=True)
            for index, right in enumerate(own)
        ]
        for benchmark in ("addition-2", "addition-3"):
            folder = root / "answers" / name / way / benchmark
            folder.mkdir(parents=True)
            write_grades(folder / "grades.jsonl", [one for one in grades if one.benchmark == benchmark])


@pytest.fixture
def root(tmp_path):
    write(tmp_path, START, [[0, 0], [1, 0], [0, 0]], [0, 0, 0])
    write(tmp_path, "ours_0", [[1, 0], [1, 1], [0, 0]], [1, 1, 0])
    write(tmp_path, "ours_5", [[1, 1], [1, 1], [0, 1]], [1, 1, 1])
    write(tmp_path, "more_0", [[0, 0], [1, 1], [0, 0]], [0, 1, 0])
    return tmp_path


def test_figures_by_hand(root):
    one = examined(STUDY, root, "ours_0")
    assert list(one.average.values()) == [0.5, 1, 0]
    assert list(one.any.values()) == [1, 1, 0] and list(one.greedy.values()) == [1, 1, 0]
    assert examined(STUDY, root, "more_5") is None
    lines = {line[0]: line[1:] for line in table(STUDY, runs(STUDY, root), root)}
    assert lines["start"] == ["1", "0.167", "0.000", "0.333", "-"]
    # 3 of 6 and 5 of 6 right: mean 0.667, standard error (0.833 - 0.5) / 2.
    assert lines["ours"][:2] == ["2", "0.667 ± 0.167 (0.500, 0.833)"]
    assert lines["more"] == ["1", "0.333", "0.333", "0.333", "0.0"]


def test_comparisons_are_of_problems_and_of_the_seeds_that_both_have(root):
    tests = differences(STUDY, runs(STUDY, root))
    pairs = [("ours", "start"), ("ours", "more")]
    expected = [(*pair, figure) for pair in pairs for figure in ("average", "greedy", "any")]
    assert [(one.arm, one.other, one.figure) for one in tests] == expected
    # Over two seeds, by problem: (.5 + 1) / 2 - 0, (1 + 1) / 2 - .5, (0 + .5) / 2 - 0.
    assert tests[0].mean == pytest.approx(np.mean([0.75, 0.5, 0.25]))
    assert tests[0].by_seed == pytest.approx((1 / 3, 2 / 3))
    low, high, p = paired_bootstrap(np.array([0.75, 0.5, 0.25]))
    assert (tests[0].low, tests[0].high) == (low, high)
    assert tests[3].by_seed == pytest.approx((0.5 - 1 / 3,))  # seed 0 alone
    by_problem = [[0.75, 0.5, 0.25], [1, 1, 0.5], [1, 0, 0.5], [0.5, 0, 0], [1, 0, 0], [1, 0, 0]]
    raw = {str(place): paired_bootstrap(np.array(values))[2] for place, values in enumerate(by_problem)}
    assert [one.p for one in tests] == list(holm(raw).values()) and tests[0].p == 6 * p


def test_groups_of_problems_are_compared_by_themselves_and_scores_are_a_figure(root):
    study = dataclasses.replace(
        STUDY, environments=("addition", "sorting"), difficulties=(2,), reward="RM", comparisons=(("ours", START),),
        groups=(ProblemGroup("sums", ("addition",)), ProblemGroup("orders", ("sorting",))), seeds=(0,),
    )  # fmt: skip
    scores = {START: (1.0, -1.0), "ours_0": (2.5, -3.0)}
    for name, values in scores.items():
        write(root / "scored", name, [[0, 0], [1, 0], [0, 0]], [0, 0, 0])
        for way in ("sampled", "greedy"):
            answers = root / "scored" / "answers" / name / way
            (answers / "addition-3").rename(answers / "sorting-2")
        for benchmark, value in zip(("addition-2", "sorting-2"), values, strict=True):
            rows = [{"problem": "p", "index": i, "score": value + 2 * i - 1, "known": True} for i in range(2)]
            path = root / "scored" / "answers" / name / "sampled" / benchmark / "scores.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = {(one.group, one.figure): one.mean for one in differences(study, runs(study, root / "scored"))}
    assert told["sums", "score"] == pytest.approx(1.5) and told["orders", "score"] == pytest.approx(-2.0)
    assert len(told) == 8 and told["sums", "average"] == 0
    plan = [stage.name for stage in stages(study, root)]
    assert plan == [f"{name}_{way}" for name in ("start",) for way in ("sampled", "greedy", "scored")] + [
        "ours_0", "ours_0_sampled", "ours_0_greedy", "ours_0_scored",
        "more_0", "more_0_sampled", "more_0_greedy", "more_0_scored",
    ]  # fmt: skip


def test_results_are_written_and_told(root):
    said = write_results(STUDY, root)
    assert "| ours - start | all | average | +0.500 |" in said and "| addition-2 | 2 | 0.250 |" in said
    kept = json.loads((root / "results.json").read_text())
    assert kept["arms"]["ours"]["5"]["average"] == pytest.approx(5 / 6)
    assert kept["study"]["name"] == "s" and len(kept["comparisons"]) == 6


def test_curves_are_means_over_seeds_as_far_as_all_have_come(tmp_path):
    for seed, rewards in ((0, [0.25, 0.5, 1.0]), (5, [0.75, None])):
        (tmp_path / f"ours_{seed}").mkdir()
        rows = [
            {"kind": "step", "step": step, "reward": reward, "entropy": 0.5, "length": 10.0 * step,
             "environments": {"addition": {"difficulty": step}, "sorting": {"difficulty": 3 * step}}}
            for step, reward in enumerate(rewards, 1)
        ]  # fmt: skip
        (tmp_path / f"ours_{seed}" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curves = curves_of(STUDY, tmp_path)
    assert all([curve.label for curve in own] == ["ours (2)"] for own in curves.values())
    (reward,), (difficulty,) = curves["reward"], curves["difficulty, mean of environments"]
    np.testing.assert_allclose(reward.y, [0.5, np.nan])  # 0.25 and 0.75, then 0.5 and nothing
    np.testing.assert_allclose(difficulty.y, [2.0, 3.0])  # 2 and 4, smoothed
    write_curves(STUDY, tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_nothing_to_draw_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no steps to draw"):
        write_curves(STUDY, tmp_path, tmp_path / "curves.png")


def test_nothing_examined_yet(tmp_path):
    assert write_results(STUDY, tmp_path).count("\n") == 1  # a table without rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": ()}, "s: not a study; expected arms with names of their own, and different seeds"),
        ({"seeds": (1, 1)}, "not a study"),
        ({"comparisons": (("ours", "nobody"),)}, "comparisons: not a comparison; expected two of start, ours, more"),
        ({"initial": ""}, "initial: no model to begin with"),
        ({"problems": 0}, "problems"),
        (
            {"groups": (ProblemGroup("g", ("sorting",)),)},
            "groups, g: not a group; expected some of the environments; found sorting",
        ),
    ],
)
def test_what_is_no_study_is_one_line(change, message):
    with pytest.raises(UserError) as caught:
        dataclasses.replace(STUDY, **change)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_arm_is_one_line():
    with pytest.raises(UserError, match="arm x: no such command; expected rl or train; found sft"):
        Arm("x", "sft", "")
    with pytest.raises(UserError, match="not a name of an arm"):
        Arm("start", "rl", "")
