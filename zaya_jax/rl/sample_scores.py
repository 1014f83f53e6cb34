"""What a reward model says of the answers that `evaluate` has stored: scores.jsonl beside samples.jsonl.

    {"problem", "index", "score", "known"}

Answers are scored as in the loop (`reward_scores`): the text behind the reasoning; one that there is none of, or that a
budget cut off, has no score of its own, and one nat below the worst of its problem in its place.
"""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from zaya_jax.environments.rows import read_rows, text_of
from zaya_jax.errors import mistake
from zaya_jax.evaluation.samples import Sample, read_samples
from zaya_jax.evaluation.search_records import PROBLEMS, SAMPLES
from zaya_jax.rl.reward_scores import RewardModelConfig, ScoreGroup, open_scorer
from zaya_jax.sampling.files import write_rows
from zaya_jax.text.thinking import THINK_END, split_thinking

SCORES = "scores.jsonl"


def score_answers(directory: pathlib.Path | str, model: RewardModelConfig, dtype: str = "float32") -> str:
    """Scores every benchmark below an output of `evaluate`; gives a line of each.

    Raises:
        UserError: there is no such output, or the reward model is not right.
    """
    found = sorted(path.parent for path in pathlib.Path(directory).glob(f"*/{SAMPLES}"))
    if not found:
        raise mistake("no samples", where=directory, expected=f"an output of evaluate: BENCHMARK/{SAMPLES}")
    scorer = open_scorer(model, None, dtype)
    return "\n".join(_score(path, scorer) for path in found)


def read_scores(path: pathlib.Path | str) -> dict[str, float]:
    """The mean score of each problem's answers.

    Raises:
        UserError: the file cannot be read, or a line is no score.
    """
    scores: dict[str, list[float]] = collections.defaultdict(list)
    for where, row in read_rows(path):
        value = row.get("score")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise mistake("no score", where=where, expected="a number", found=repr(value)[:40])
        scores[text_of(row, "problem", where)].append(float(value))
    return {problem: float(np.mean(values)) for problem, values in scores.items()}


def _score(directory: pathlib.Path, scorer: ScoreGroup) -> str:
    prompts = {text_of(row, "problem", at): text_of(row, "prompt", at) for at, row in read_rows(directory / PROBLEMS)}
    samples: dict[str, list[Sample]] = collections.defaultdict(list)
    for sample in read_samples(directory / SAMPLES):
        samples[sample.problem].append(sample)
    rows = list(_rows(prompts, samples, scorer))
    write_rows(directory / SCORES, rows)
    known = sum(row["known"] for row in rows) / len(rows)
    return f"{directory.name}: mean score {np.mean([row['score'] for row in rows]):.3f}, {known:.1%} have one"


def _rows(
    prompts: Mapping[str, str], samples: Mapping[str, Sequence[Sample]], scorer: ScoreGroup
) -> Iterator[dict[str, Any]]:
    for problem, own in samples.items():
        scores = scorer(prompts[problem], [_shown(sample) for sample in own])
        for sample, score, known in zip(own, scores.values_G, scores.known_G, strict=True):
            yield {"problem": problem, "index": sample.index, "score": float(score), "known": bool(known)}


def _shown(sample: Sample) -> str:
    """The answer; nothing for one that was cut off."""
    if sample.truncated or not split_thinking(sample.response).closed:
        return ""
    return sample.response.rpartition(THINK_END)[2].strip()
