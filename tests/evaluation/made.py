"""Samples and grades made up for tests."""

from zaya_jax.evaluation.grades import Grade
from zaya_jax.evaluation.samples import Sample


def sample(problem: str = "a", index: int = 0, **changes) -> Sample:
    fields = {
        "benchmark": "b", "problem": problem, "index": index, "method": "single", "seed": 0, "response": "x",
        "finish_reason": "stop", "generated": 10, "answer_tokens": 2, "meta": {},
    }  # fmt: skip
    return Sample(**(fields | changes))


def grade_of(sample: Sample, correct: bool, cluster: int | None = None, **changes) -> Grade:
    fields = {"correct": correct, "format": True, "answer": "x", "cluster": cluster, "error": None}
    return Grade(sample.benchmark, *sample.key, **(fields | changes))


def run(table: dict[str, str], **changes) -> tuple[list[Sample], list[Grade]]:
    """Samples and grades from a word a problem: a letter a sample, capitals are right, equal letters equal answers.

    A dot has no answer.
    """
    samples = [sample(name, i, **changes) for name, word in table.items() for i in range(len(word))]
    letters = [letter for word in table.values() for letter in word]
    grades = [
        grade_of(one, letter.isupper(), None if letter == "." else ord(letter), format=letter != ".",
                 answer=None if letter == "." else letter)
        for one, letter in zip(samples, letters)
    ]  # fmt: skip
    return samples, grades
