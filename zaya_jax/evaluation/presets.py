"""What the ZAYA1-8B report measured, how it sampled, and what it found: data, for `--preset=report` and tables.

Sources: the technical report, arXiv 2605.05365 (Table VII: sampling and benchmarks; Table IX: before RL; Tables XII and
XIII: test-time compute), and the model card Zyphra/ZAYA1-8B where it says something else. All scores are per cent. How
many tokens a reply may have is disclosed for no benchmark, so no preset sets a budget (`wanted`). Our prompts are not
the report's, which are not published.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping

from zaya_jax.errors import mistake


@dataclasses.dataclass(frozen=True)
class Preset:
    """How a benchmark is sampled and what others found.

    Attributes:
        benchmark: our name of it: that of its file.
        title: as people write it.
        temperature, top_p, top_k: of a single rollout; top_k -1 is off.
        k: samples a problem.
        report: the report's score of the final model; None if it has none.
        model_card: the model card's, where it differs.
        before_rl: the report's score after supervised fine-tuning (Table IX).
        note: what to know before comparing.
    """

    benchmark: str
    title: str
    temperature: float
    top_p: float
    top_k: int
    k: int
    report: float | None
    model_card: tuple[float, ...] = ()
    before_rl: float | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Published:
    """A point of the report's sweep of Markovian RSA (temperature 1, top-p 1; C tails of tau tokens, T rounds after
    the first, N candidates, thinking budget beta).

    Attributes:
        settings: T, N, C, beta, tau; empty for a single rollout.
        scores: mean accuracy of the final candidates in per cent, by benchmark.
        tokens: generated for a problem, about; None where it is not said.
    """

    settings: Mapping[str, int]
    scores: Mapping[str, float]
    tokens: float | None = None


def _math(benchmark: str, title: str, report: float | None, **others) -> Preset:
    return Preset(benchmark, title, 1.0, 0.95, -1, 64, report, **others)


_CARD_TOP_K = "the model card has top-k off for this"
_SINGLE_ONLY = "single rollout of the checkpoint before the last (behavioural) stage"
PRESETS = {
    preset.benchmark: preset
    for preset in (
        _math("aime25", "AIME'25", 88.3, note=_SINGLE_ONLY),
        _math("aime26", "AIME'26", 89.1, before_rl=68.3),
        _math("hmmt25", "HMMT Feb'25", 82.7, note=_SINGLE_ONLY),
        _math("hmmt26", "HMMT Feb'26", 71.6, before_rl=39.2),
        _math("apex_shortlist", "APEX-shortlist", 32.2),
        _math("imo_answerbench", "IMO-AnswerBench", 59.3),
        Preset("gpqa_diamond", "GPQA-Diamond", 1.0, 0.95, -1, 16, 71.0, before_rl=59.3),
        Preset("mmlu_pro", "MMLU-Pro", 1.0, 0.95, -1, 1, 74.2, before_rl=70.1),
        Preset("lcb_v6", "LiveCodeBench-v6", 0.6, 0.95, 20, 16, 64.8, (65.8, 63.8), 54.8,
               note=f"problems of 2025-02 to 2025-05; the model card has two figures; {_CARD_TOP_K}"),
        Preset("ifeval", "IFEval", 1.0, 0.95, -1, 1, 85.6, before_rl=66.6),
        Preset("ifbench", "IFBench", 1.0, 0.95, -1, 1, 52.6, before_rl=30.2),
    )
}  # fmt: skip

K, M = 1024, 1_000_000


def _sweep(T: int, N: int, C: int, beta: int, tau: int) -> dict[str, int]:
    return {"T": T, "N": N, "C": C, "beta": beta * K, "tau": tau * K}


TEST_TIME = (
    Published({}, {"aime25": 88.3, "hmmt25": 82.7, "apex_shortlist": 32.2, "lcb_v6": 65.0}),
    Published(_sweep(4, 16, 1, 8, 4), {"aime25": 82.1, "hmmt25": 75.0}),
    Published(_sweep(2, 16, 4, 8, 4), {"aime25": 86.5, "hmmt25": 80.8, "apex_shortlist": 33.3}),
    Published(_sweep(2, 16, 4, 16, 4), {"aime25": 88.8, "hmmt25": 87.1}, 0.44 * M),
    Published(_sweep(2, 16, 4, 40, 4), {"aime25": 91.9, "hmmt25": 89.6}, 0.74 * M),
    Published(_sweep(2, 16, 4, 40, 8), {"aime25": 90.8, "hmmt25": 89.2}),
    Published(_sweep(8, 16, 4, 16, 4), {"apex_shortlist": 46.1}),
    Published(_sweep(8, 32, 4, 32, 4), {"apex_shortlist": 51.8}, 5.5 * M),
)


def preset(benchmark: str) -> Preset:
    """The report's values for a benchmark.

    Raises:
        UserError: there are none; the nearest name is given.
    """
    if benchmark not in PRESETS:
        close = difflib.get_close_matches(benchmark, PRESETS, 1)
        fix = f"did you mean {close[0]}?" if close else "give the sampling settings yourself"
        raise mistake("the report has no such benchmark", where=benchmark, expected=f"{', '.join(PRESETS)}", fix=fix)
    return PRESETS[benchmark]


def published(settings: Mapping[str, int], benchmark: str) -> float | None:
    """The report's score with these settings of Markovian RSA; None if it has none."""
    found = [point for point in TEST_TIME if settings and point.settings == settings]
    return found[0].scores.get(benchmark) if found else None
