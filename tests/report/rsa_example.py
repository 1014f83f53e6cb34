"""A run of Markovian RSA to look at: a problem whose answers converge, one that stays split, one still worked on.

python -m tests.report.rsa_example page.html
"""

import json
import random
import sys
from pathlib import Path

N, C, T = 8, 4, 2
SETTINGS = {
    "n": N, "c": C, "t": T, "beta": 8192, "tau": 2048, "answer_budget": 4096, "parents": "uniform",
    "compaction": "tail", "probe_answers": True, "temperature": 1.0, "top_p": 1.0, "seed": 7,
    "checkpoint": "/models/ZAYA1-8B", "dtype": "bfloat16",
}  # fmt: skip

SQUARE = (
    "Find the sum of all positive integers $n$ such that $n^2 + 85n + 2017$ is a perfect square.\n\n"
    "Give the final answer in \\boxed{}."
)
TRIANGLE = "How many triangles with integer sides have perimeter 2026? Give the final answer in \\boxed{}."
# What round 0, 1 and 2 answer; None: the thinking budget ends first, and nothing is extracted.
ANSWERS = {
    "hmmt-square": [
        ["168", "195", "168", None, "27", "195", "168", "253"],
        ["195", "195", "168", "195", "195", "27", "168", "195"],
        ["195", "195", "195", "195", "195", "195", "168", "195"],
    ],
    "triangles": [
        ["85514", "85684", "85515", None, "85514", "85345", None, "171028"],
        ["85514", "85515", "85514", "85684", "85514", "85515", "85515", "85514"],
        ["85515", "85514", "85514", "85515", "85514", "85515", "85514", "85515"],
    ],
    "aime-lattice": [["36", "40", "36", "36", None, "40", "36", "12"], ["36", "36", None, "36"], []],
}
GOLD = {"hmmt-square": "195", "triangles": None, "aime-lattice": "36"}

OPENING = (
    "Let n^2 + 85n + 2017 = m^2 with m > 0. Multiply by 4 and complete the square:\n"
    "(2n + 85)^2 + 8068 - 7225 = (2m)^2, so (2m)^2 - (2n + 85)^2 = 843.\n"
    "That factors as (2m - 2n - 85)(2m + 2n + 85) = 843.\n\n"
)
STEPS = {
    "195": "843 = 3 * 281, so the pairs are (1, 843) and (3, 281).\nFirst: 2(2n + 85) = 842, n = 168. Second: "
    "2(2n + 85) = 278, n = 27.\nCheck n = 27: 729 + 2295 + 2017 = 5041 = 71^2. Check n = 168: 28224 + 14280 + 2017 = "
    "44521 = 211^2. Both work. The sum is 168 + 27 = 195.",
    "168": "Is 843 prime? It is odd and does not end in 5, so only the pair (1, 843) is left.\n2(2n + 85) = 842, "
    "n = 168. Check: 28224 + 14280 + 2017 = 44521 = 211^2. So the only n is 168.",
    "27": "Take 3 * 281: 2(2n + 85) = 278, n = 27 and m = 71. The other pair makes n too large, I think. So n = 27.",
    "253": "One pair: (1, 843). 2n + 85 = 421, hence n = 168 ... and I add the 85 back: 168 + 85 = 253.",
    None: "Let me try small n one by one. n = 1: 2103, not a square. n = 2: 2191, no. n = 3: 2281, no. n = 4: 2373.",
}


def example() -> tuple[dict, list[dict], list[dict]]:
    """Settings, problems and candidates."""
    rng = random.Random(3)
    candidates = [_candidate(rng, name, number, index, answer) for name, rounds in ANSWERS.items()
                  for number, answers in enumerate(rounds) for index, answer in enumerate(answers)]  # fmt: skip
    return SETTINGS, [_problem(name, candidates) for name in ANSWERS if name != "aime-lattice"], candidates


def write_example(directory: Path) -> Path:
    """The run on disk."""
    directory.mkdir(parents=True, exist_ok=True)
    settings, problems, candidates = example()
    (directory / "settings.json").write_text(json.dumps(settings))
    for name, records in (("problems", problems), ("candidates", candidates)):
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return directory


def _candidate(rng: random.Random, name: str, number: int, index: int, answer: str | None) -> dict:
    parents = sorted(rng.sample(range(N), C)) if number else []
    thinking = _thinking(rng, name, parents, answer)
    correct = None if GOLD[name] is None else answer == GOLD[name]
    tail = thinking[-(280 if number < T else 240) :]
    return {
        "problem": name, "round": number, "index": index, "parents": parents,
        "prompt_tokens": 61 + 2048 * len(parents), "tokens": 8192 + 41 if answer is None else rng.randint(3100, 8100),
        "thinking": thinking, "answer": f"The sum of all such n is \\boxed{{{answer}}}." if answer else "",
        "extracted": answer, "correct": correct, "finish": "stop" if answer else "length",
        "think_forced": answer is None or rng.random() < 0.15, "logprob": -rng.uniform(0.21, 0.48), "tail": tail,
        "probe": {"extracted": answer, "correct": correct} if rng.random() < 0.5 else None,
    }  # fmt: skip


def _thinking(rng: random.Random, name: str, parents: list[int], answer: str | None) -> str:
    read = f"There are {len(parents)} attempts. They do not agree, so I check each step again.\n\n" if parents else ""
    if name != "hmmt-square":
        return f"{read}Counting by the longest side, I get {answer or 'nothing that I trust yet'}.\n"
    doubts = ["Wait, let me double-check that.", "Let me verify with a small case.", "Hmm, is m even or odd?"]
    asides = (f"{rng.choice(doubts)} 4 * 2017 = 8068 and 85^2 = 7225, which leaves 843.\n" for _ in range(9))
    return f"{read}{''.join(asides)}\n{OPENING}{STEPS[answer]}"


def _problem(name: str, candidates: list[dict]) -> dict:
    last = [c for c in candidates if c["problem"] == name and c["round"] == T]
    given = [c["extracted"] for c in last]
    majority = max(dict.fromkeys(given), key=given.count)
    correct = None if GOLD[name] is None else majority == GOLD[name]
    return {
        "problem": name, "prompt": SQUARE if name == "hmmt-square" else TRIANGLE, "gold": GOLD[name],
        "mean": None if GOLD[name] is None else sum(c["correct"] for c in last) / N,
        "majority": {"answer": majority, "votes": given.count(majority), "correct": correct},
        "final": {"answer": majority, "correct": correct},
        "rounds": [_round(number, [c for c in candidates if c["problem"] == name and c["round"] == number])
                   for number in range(T + 1)],
    }  # fmt: skip


def _round(number: int, drawn: list[dict]) -> dict:
    prompts = sum(c["prompt_tokens"] for c in drawn)
    reused = 61 * (N - 1)
    return {
        "round": number, "generated": sum(c["tokens"] for c in drawn), "prefilled": prompts - reused, "reused": reused,
        "carried": 2048 * N if number < T else 0, "probed": 25 * sum(c["probe"] is not None for c in drawn),
        "seconds": 310.0 + 25 * number,
    }  # fmt: skip


if __name__ == "__main__":
    from zaya_jax.report.candidates import candidates_page
    from zaya_jax.report.html import write_page

    print(write_page(sys.argv[1], candidates_page(*example())))
