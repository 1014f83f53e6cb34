"""math-verify in processes that can be killed."""

import importlib.util
import os
import time

import pytest

from zaya_jax.errors import UserError
from zaya_jax.grading import math_worker
from zaya_jax.grading.equivalence import cluster, equivalent
from zaya_jax.grading.math_verifier import Judgement, MathVerifier

INSTALLED = importlib.util.find_spec("math_verify") is not None
needs_it = pytest.mark.skipif(not INSTALLED, reason="math-verify is not installed: pip install -e .[grading]")
HANGS = "9^{9^{9^{9}}}"


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(workers=2, timeout=10) as verifier:
        yield verifier


@needs_it
@pytest.mark.parametrize(
    ("gold", "answer", "judgement"),
    [
        ("x+1", "1+x", Judgement.EQUAL),
        ("$x^2-1$", "(x-1)(x+1)", Judgement.EQUAL),
        (r"\sin^2 x + \cos^2 x", "1", Judgement.EQUAL),
        (r"\sqrt[3]{8}", "2", Judgement.EQUAL),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\\frac42\end{pmatrix}", Judgement.EQUAL),
        ("x", "y", Judgement.DIFFERENT),
        (r"\frac{1}{3}", "0.333", Judgement.DIFFERENT),
        ("x", " ", Judgement.UNREADABLE),
        ("x", "x" * 20_000, Judgement.UNREADABLE),
    ],
)
def test_judgements(verifier, gold, answer, judgement):
    assert verifier.equivalent_many([(gold, answer)]) == [judgement]


@needs_it
def test_an_answer_that_hangs_is_killed_in_time_and_the_pool_goes_on():
    with MathVerifier(workers=1, timeout=2) as verifier:
        before = verifier._all[0].process.pid
        begun = time.monotonic()
        judgements = verifier.equivalent_many([("x+1", "1+x"), (HANGS, "1"), ("x+1", "1+x")])
        assert judgements == [Judgement.EQUAL, Judgement.TIMED_OUT, Judgement.EQUAL]
        assert time.monotonic() - begun < 30
        assert not os.path.exists(f"/proc/{before}")
        after = verifier._all[0].process.pid
    assert not os.path.exists(f"/proc/{after}")


@needs_it
def test_answers_are_not_evaluated_as_python(verifier, tmp_path):
    target = tmp_path / "evaluated"
    for text in (f"__import__('os').mkdir('{target}')", f"\\text{{__import__('os').mkdir('{target}')}}"):
        verifier.equivalent_many([(text, "1"), ("1", text)])
    assert not target.exists()


@needs_it
def test_equivalence_asks_it_only_where_exact_rules_cannot_tell(verifier, monkeypatch):
    assert equivalent("x+1", "1+x", "latex", verifier)
    assert not equivalent("x+1", "x+2", "latex", verifier)
    assert cluster(["x+1", "2", "1+x", "2.0"], "latex", verifier) == [0, 1, 0, 1]
    asked = []
    monkeypatch.setattr(verifier, "equivalent_many", lambda pairs: asked.extend(pairs) or [Judgement.EQUAL])
    assert not equivalent("1", "2", "latex", verifier) and equivalent("1", "2/2", "latex", verifier)
    assert asked == []


def test_without_math_verify_it_says_what_to_install(monkeypatch, tmp_path):
    (tmp_path / "math_verify.py").write_text("raise ImportError('No module named math_verify')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=r"No module named.*pip install -e \.\[grading\]"), MathVerifier():
        pass


def test_a_worker_that_dies_or_hangs_is_replaced(monkeypatch, tmp_path):
    # A stand-in for math_worker.py: the pool is tested where math-verify is not installed.
    stand_in = tmp_path / "worker.py"
    stand_in.write_text(
        "import json, os, sys, time\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    gold, answer = json.loads(line)\n"
        "    if answer == 'hang': time.sleep(100)\n"
        "    if answer == 'die': os._exit(1)\n"
        "    print('equal' if gold == answer else 'different', flush=True)\n"
    )
    monkeypatch.setattr(math_worker, "__file__", str(stand_in))
    pairs = [("1", "1"), ("1", "hang"), ("1", "2"), ("1", "die"), ("1", "1")]
    words = ["equal", "timed out", "different", "unreadable", "equal"]
    for workers in (1, 3):
        with MathVerifier(workers, timeout=0.5) as verifier:
            assert [judgement.value for judgement in verifier.equivalent_many(pairs)] == words
