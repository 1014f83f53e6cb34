"""Graders for tests where `zaya_jax.grading` is not there: as little of its interface as the tests need."""

import importlib.util
import re
import subprocess
import sys
import types
from dataclasses import dataclass

import pytest

REAL = importlib.util.find_spec("zaya_jax.grading") is not None and all(
    importlib.util.find_spec(f"zaya_jax.grading.{name}")
    for name in ("extract", "equivalence", "code", "sandbox", "instructions")
)


@dataclass
class CodeVerdict:
    passed: bool
    count: int
    first_failure: int | None
    status: str


def extract(text: str, kind: str) -> str | None:
    if kind == "code":
        blocks = re.findall(r"```(?:python)?\n(.*?)```", text, re.DOTALL)
        return blocks[-1] if blocks else None
    boxed = re.findall(r"\\boxed\{(.*)\}", text)
    answer = boxed[-1].strip() if boxed else None
    wanted = {"integer": r"[-+]?\d+", "choice": r"[A-Z]"}.get(kind, r".+")
    return answer if answer and re.fullmatch(wanted, answer) else None


def equivalent(gold: str, answer: str, kind: str, verifier=None) -> bool:
    return int(gold) == int(answer) if kind == "integer" else gold.replace(" ", "") == answer.replace(" ", "")


def cluster(answers: list[str | None], kind: str, verifier=None) -> list[int]:
    found: list[str] = []
    numbers = []
    for answer in answers:
        known = [i for i, other in enumerate(found) if equivalent(other, answer, kind)]
        found += [] if known else [answer]
        numbers.append(known[0] if known else len(found) - 1)
    return numbers


def check_code(code: str, tests: list[dict], sandbox) -> CodeVerdict:
    failed = next((place for place, test in enumerate(tests) if not _passes(code, test)), None)
    return CodeVerdict(
        failed is None, len(tests) if failed is None else failed, failed, "wrong" if failed else "passed"
    )


def _passes(code: str, test: dict) -> bool:
    if test["testtype"] == "functional":
        arguments = ", ".join(test["input"].splitlines())
        code += f"\nimport json\nprint(json.dumps(Solution().{test['fn_name']}({arguments})))"
    done = subprocess.run([sys.executable, "-I", "-c", code], input=test["input"], capture_output=True, text=True)
    return done.returncode == 0 and done.stdout.split() == test["output"].split()


CHECKS = {
    "no_commas": lambda response: "," not in response,
    "words": lambda response, relation, number: relation == "at least" and len(response.split()) >= number,
}


def check(name: str, arguments: dict, response: str) -> bool:
    return CHECKS[name](response, **arguments)


@pytest.fixture(autouse=True)
def grading(monkeypatch):
    """The real graders if they are there; these if not."""
    if not REAL:
        modules = {
            "extract": {"extract": extract},
            "equivalence": {"equivalent": equivalent, "cluster": cluster},
            "code": {"check_code": check_code},
            "sandbox": {"Sandbox": object},
            "instructions": {"check": check, "CHECKS": CHECKS},
        }
        monkeypatch.setitem(sys.modules, "zaya_jax.grading", types.ModuleType("zaya_jax.grading"))
        for name, members in modules.items():
            module = types.ModuleType(f"zaya_jax.grading.{name}")
            vars(module).update(members)
            monkeypatch.setitem(sys.modules, module.__name__, module)
