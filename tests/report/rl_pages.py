"""Runs of reinforcement learning and cascades to report on."""

import json
from pathlib import Path

from tests.report.pages import whole_run, write_run

FAMILIES = ("addition", "sorting", "attempts:/data/of/attempts.jsonl?wording=compact")


def rl_start(**changes) -> dict:
    """The record of a start."""
    config = {"name": "rlve_gym", "steps": 40, "schedule": {"sources": [{"environment": name} for name in FAMILIES]},
              "held_out": {"every": 10, "problems": 16, "answers": 4}}  # fmt: skip
    return {"kind": "start", "time": 1.78e9, "config": config, "resumed_from": None, "device_kind": "cpu"} | changes


def rl_step(number: int, **changes) -> dict:
    """The record of a step: the reward rises by 1/100 a step, difficulties by one in ten steps."""
    environments = {
        name: {"difficulty": place * number // 10, "pass_rate": None if number % 3 == place else 0.5, "groups": 2}
        for place, name in enumerate(FAMILIES)
    }
    return {
        "kind": "step", "step": number, "learning_rate": 5e-4, "reward": 0.1 + number / 100, "groups": 10, "taught": 8,
        "dropped": {"all wrong": 2}, "truncated": 0.25, "degenerate": 0.0, "length": 60.0 + number, "entropy": 0.5,
        "rare_tokens": {"10": 0.1}, "loss": -1.0, "gradient_norm": 10.0, "applied": True, "learnt_tokens": 900,
        "kept": 1.0, "clipped": 0.0, "ratio": 1.0, "kl": 1e-6, "environments": environments,
        "parity": None if number % 10 else {"tokens": 5000, "max_delta": 1e-4, "kl": 3e-6, "pearson": 0.9999,
                                            "route_flips": 3, "routes": 1000},
        "staleness": {"mean": 0.0, "max": 0}, "drawn_tokens": 1000, "seconds": {"engine": 1.0, "whole": 2.5},
    } | changes  # fmt: skip


def look(step: int, environment: str = "addition", difficulty: int = 0, **changes) -> dict:
    """The record of a look: accuracy rises with the step and falls with the difficulty."""
    average = 0.3 + step / 100 - 0.1 * difficulty
    record = {"kind": "look", "step": step, "environment": environment, "difficulty": difficulty, "average": average}
    return record | {"any": average + 0.2, "truncated": 0.0, "tokens": 50.0} | changes


def rl_records(steps: int = 40) -> list[dict]:
    """Records of every kind, of a run of 40 steps."""
    looks = [look(step, name, difficulty) for step in range(0, steps + 1, 10) for name in FAMILIES[:2]
             for difficulty in (0, 2)]  # fmt: skip
    warning = {"kind": "warning", "step": 5, "text": "55% of responses were cut off"}
    found = {"kind": "start_difficulty", "step": 0, "environment": "addition", "groups": 7, "value": 3}
    return [rl_start(), found, *looks, *(rl_step(number) for number in range(1, steps + 1)), warning]


def write_cascade_run(directory: Path) -> Path:
    """A cascade that is under way: finetuning and warmup are over, RLVE-Gym is not, what follows has not begun."""
    kinds = {"data_train": "data", "sft": "training", "warmup": "rl", "rlve_gym": "rl", "rsa_before": "search",
             "reward_model": "reward", "behavioral_chat": "rl", "rsa_after": "search"}  # fmt: skip
    stages = [{"name": name, "title": name.upper(), "kind": kind, "workdir": name, "command": f"python -m x {name}"}
              for name, kind in kinds.items()]  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "stages.json").write_text(json.dumps({"schema": 1, "stages": stages}))
    write_run(directory / "sft", whole_run(30))
    write_run(directory / "warmup", rl_records())
    write_run(directory / "rlve_gym", rl_records(12))
    return directory


def write_search(directory: Path, right: list[list[int]]) -> Path:
    """A search of one problem for each row: of four candidates so many are right in each round."""
    directory.mkdir(parents=True, exist_ok=True)
    rounds = len(right[0])
    (directory / "settings.json").write_text(json.dumps({"n": 4, "c": 2, "t": rounds - 1}))
    candidates = [
        {"problem": f"p{place}", "round": number, "index": index, "tokens": 10, "extracted": str(index < count),
         "correct": index < count}
        for place, row in enumerate(right) for number, count in enumerate(row) for index in range(4)
    ]  # fmt: skip
    problems = [
        {"problem": f"p{place}", "majority": {"correct": row[-1] > 2, "votes": 4}} for place, row in enumerate(right)
    ]
    for name, rows in {"candidates": candidates, "problems": problems}.items():
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory
