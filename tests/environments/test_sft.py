"""Conversations of the task families: right answers, parts that are apart, attempts as Markovian RSA shows them."""

import collections
import itertools
import json
import os
import re
import subprocess
import sys

import pytest

from tests.environments.families.oracles import ORACLES
from zaya_jax.data.schema import parse_chat
from zaya_jax.environments.families import FAMILIES
from zaya_jax.environments.sft import Making, draw, make_data, make_rows, parse_difficulties, part_of
from zaya_jax.errors import UserError


def prompts(rows):
    return [row["messages"][0]["content"] for row in rows]


@pytest.fixture(scope="module")
def parts():
    """Rows of both parts, half of them with attempts."""
    given = {"difficulties": (0, 2, 5), "count": 660, "aggregation": 0.5}
    return {part: list(make_rows(Making(part=part, **given))) for part in ("train", "held_out")}


def test_rows_are_good_conversations_with_right_answers(parts):
    for row in parts["train"] + parts["held_out"]:
        assert parse_chat(row).weights == (0.0, 1.0)
        prompt, reply = row["messages"]
        problem = prompt["content"].split("\n\n")[0]
        assert ORACLES[row["environment"]](problem, reply["content"])
        assert row["id"] == f"{row['environment']}/{row['difficulty']}/{row['seed']}"
        again = FAMILIES[row["environment"]].generate(row["seed"], row["difficulty"])
        assert again.prompt == problem
        if "aggregation" not in row:
            assert (reply["reasoning_content"], reply["content"]) == FAMILIES[row["environment"]].explain(again)


def test_families_and_difficulties_have_equal_parts(parts):
    counts = collections.Counter((row["environment"], row["difficulty"]) for row in parts["train"])
    assert counts == {(name, difficulty): 20 for name in FAMILIES for difficulty in (0, 2, 5)}


def test_no_problem_is_there_twice_or_in_both_parts(parts):
    problems = {part: [prompt.split("\n\n")[0] for prompt in prompts(rows)] for part, rows in parts.items()}
    assert len(set(problems["train"])) == len(problems["train"]) == 660
    assert len(set(problems["held_out"])) == len(problems["held_out"]) == 660
    assert not set(problems["train"]) & set(problems["held_out"])
    for part, texts in problems.items():
        assert {part_of(text) for text in texts} == {part}
        assert {row["seed"] % 2 for row in parts[part]} == {("train", "held_out").index(part)}
    other = [row["messages"][0]["content"] for row in make_rows(Making(seed=1, difficulties=(0, 2, 5), count=660))]
    assert not set(other) & set(problems["held_out"])


def test_one_prompt_in_ten_is_held_out():
    held_out = sum(part_of(f"add {a}+{b}") == "held_out" for a in range(100) for b in range(50))
    assert 430 < held_out < 570  # 500 expected, standard deviation 21
    assert part_of("add 1+0") == part_of("add 1+0")


def test_half_of_the_rows_have_attempts_some_of_them_right(parts):
    rows = [row for row in parts["train"] if "aggregation" in row]
    assert 280 < len(rows) < 380
    counts = [row["aggregation"] for row in rows]
    assert {count["attempts"] for count in counts} == {4}
    assert {count["right"] for count in counts} == {count["finished"] for count in counts} == {0, 1, 2, 3, 4}
    assert all(count["right"] <= count["finished"] for count in counts)
    # One row in five has no sound attempt; the others have none that is finished by chance alone.
    assert 0.2 < sum(count["right"] == 0 for count in counts) / len(counts) < 0.5


def test_attempts_are_the_ends_of_sound_and_of_spoiled_working(parts):
    seen = collections.Counter()
    for row in parts["train"]:
        if "aggregation" not in row:
            continue
        problem, *attempts = re.split(r"\n\n#\d\n", row["messages"][0]["content"].removesuffix("\nmerge"))
        family = FAMILIES[row["environment"]]
        reasoning = family.explain(family.generate(row["seed"], row["difficulty"]))[0]
        assert len(attempts) == 4 and all(0 <= len(attempt) <= 48 for attempt in attempts)
        end = f"\n{reasoning}\n"[-48:]  # as the chat template writes it
        whole = sum(end == attempt for attempt in attempts)
        assert whole >= row["aggregation"]["right"] or row["environment"] in ("falsify", "program_input")
        for attempt in attempts:
            sound = attempt in f"\n{reasoning}\n"
            seen["whole" if end == attempt else "cut" if sound else "wrong"] += 1
    total = sum(seen.values())
    assert seen["whole"] > 0.2 * total and seen["cut"] > 0.1 * total and seen["wrong"] > 0.25 * total


def test_long_working_is_gone_on_with_where_the_best_attempt_ends():
    begun = 0
    for row in make_rows(Making(("chain",), (4,), 60, aggregation=1.0)):
        *_, attempts = [re.split(r"\n\n#\d\n", row["messages"][0]["content"].removesuffix("\nmerge"))[1:]]
        reasoning = FAMILIES["chain"].explain(FAMILIES["chain"].generate(row["seed"], 4))[0]
        reply = row["messages"][1]["reasoning_content"]
        assert reasoning.endswith(reply) and re.match(r"\d+:", reply)
        first = int(reply.split(":")[0])
        if first > 1:
            begun += 1
            # The line before the first one of the reply is in an attempt, but for its beginning.
            before = reasoning.split("\n")[first - 2][-3:] + "\n"
            assert any(before in attempt or attempt.endswith(before[:-1]) for attempt in attempts)
        elif len(reasoning) > 96:
            assert first == 1
    assert begun > 30
    (short,) = make_rows(Making(("chain",), (4,), 1, aggregation=1.0, budget=10_000))
    assert short["messages"][1]["reasoning_content"].startswith("1:")


def test_the_same_rows_every_time(parts):
    given = {"difficulties": (0, 2, 5), "count": 660, "aggregation": 0.5}
    assert list(itertools.islice(make_rows(Making(**given)), 50)) == parts["train"][:50]
    assert prompts(itertools.islice(make_rows(Making(**given | {"seed": 1})), 50)) != prompts(parts["train"][:50])


def test_a_file_and_its_summary(tmp_path):
    path = tmp_path / "rows.jsonl"
    said = make_data(Making(("sorting", "chain"), (0, 1), 40, aggregation=1.0, attempts=2, tail=20), path)
    assert said == f"{path}: 40 rows of train, 40 with attempts; sorting 20, chain 20"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 40 and list(tmp_path.iterdir()) == [path]
    assert all(row["messages"][0]["content"].count("#") == 2 for row in rows)


def test_fewer_problems_than_asked_for_leave_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("old")
    with pytest.raises(UserError) as caught:
        make_data(Making(("automaton",), (0,), 500), path)
    # Four rules times 2 ** 5 rows are 128 problems, of which about a tenth is held out.
    most = int(re.fullmatch(r"count: not that many problems; expected at most (\d+); lower .*", str(caught.value))[1])
    train = sum(part_of(f"rule {rule} {row:05b}") == "train" for rule in (30, 90, 110, 184) for row in range(32))
    assert most == train and path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_part_that_has_come_to_its_end_ends():
    problems = list(draw(FAMILIES["automaton"], 0, "held_out"))
    expected = {f"rule {rule} {row:05b}" for rule in (30, 90, 110, 184) for row in range(32)}
    assert {problem.prompt for problem in problems} == {text for text in expected if part_of(text) == "held_out"}
    with pytest.raises(UserError, match="part: out of range; expected train or held_out; found test"):
        next(draw(FAMILIES["automaton"], 0, "test"))


@pytest.mark.parametrize(
    "given, said",
    [
        ({"environments": ("adition",)}, "environments: no family 'adition'; did you mean 'addition'?"),
        ({"environments": ()}, "environments: out of range; expected at least one family"),
        ({"difficulties": ()}, "difficulties: out of range; expected integers from 0 up"),
        ({"difficulties": (0, -1)}, "difficulties: out of range; expected integers from 0 up"),
        ({"part": "test"}, "part: out of range; expected train or held_out; found test"),
        ({"aggregation": 1.5}, "aggregation: out of range; expected a share from 0 to 1; found 1.5"),
        ({"aggregation": float("nan")}, "aggregation: out of range; expected a share from 0 to 1; found nan"),
        ({"count": 0}, "count: out of range; expected a positive integer; found 0"),
        ({"tail": 0}, "tail: out of range; expected a positive integer; found 0"),
        ({"seed": -1}, "seed: out of range; expected an integer from 0 up; found -1"),
    ],
)
def test_what_cannot_be_made_is_refused(given, said):
    with pytest.raises(UserError) as caught:
        Making(**given)
    assert str(caught.value) == said


def test_difficulties():
    assert parse_difficulties("0-4,8, 2") == (0, 1, 2, 3, 4, 8)
    assert parse_difficulties("7") == (7,)
    for text in ("", "a", "4-", "-1", "1.5", "٣", "0-99999999999", "3-1"):
        with pytest.raises(UserError, match=r"not difficulties; expected e\.g\. 0-4 or 0,2,8; found '"):
            parse_difficulties(text)


def test_the_command(tmp_path, root):
    def launch(*given):
        command = [sys.executable, "-m", "experiments.make_environment_data", *given]
        environment = os.environ | {"PYTHONPATH": str(root)}
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)

    path = tmp_path / "rows.jsonl"
    given = ["--environments=addition,chain", "--difficulties=0-1", "--count=8", "--part=held_out", "--aggregation=0.5"]
    done = launch(*given, f"--output={path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}: 8 rows of held_out, ")
    making = Making(("addition", "chain"), (0, 1), 8, "held_out", aggregation=0.5)
    assert [json.loads(line) for line in path.read_text().splitlines()] == list(make_rows(making))
    done = launch("--environments=sum", f"--output={path}")
    assert done.returncode == 2 and done.stderr.startswith("error: environments: no family 'sum'; ")
