"""The language of the program families against Python itself, and what the verifiers make of programs."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.environments.families.oracles import executed, tried
from zaya_jax.environments.families import FAMILIES
from zaya_jax.environments.families.language import LARGEST, ProgramError, outcome, parse, run

NUMBERS = st.integers(0, 99).map(str)
EXPRESSIONS = st.recursive(
    NUMBERS | st.sampled_from(["x", "y"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%"]), inner).map(lambda each: f"({''.join(each)})"),
        st.tuples(inner, st.sampled_from(["+", "*", "//", "-"]), NUMBERS).map("".join),
        inner.map(lambda each: f"-{each}"),
        st.lists(inner, min_size=2, max_size=3).map(lambda each: f"min({','.join(each)})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda each: f"max({', '.join(each)})"),
    ),
    max_leaves=6,
)


@settings(max_examples=200)
@given(first=EXPRESSIONS.filter(lambda text: "y" not in text), second=EXPRESSIONS, x=st.integers(-50, 50))
def test_programs_mean_what_they_mean_in_python(first, second, x):
    for program in (f"y={first};z={second}", f"y={first}\n{second}", f"y={first};print({second})"):
        expected = tried(program.replace("print", ""), x)
        made = outcome(parse(program), x)
        assert made == expected or (made is None and abs(expected) > 10**9)


def test_programs_of_ours_mean_what_they_mean_in_python():
    for name, seed in [(name, seed) for name in ("program_input", "program_output") for seed in range(40)]:
        program = FAMILIES[name].generate(seed, seed % 9).prompt.split()[-1]
        x = None if name == "program_output" else seed
        assert run(parse(program), x) == executed(program, x)


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "empty"), ("\n;", "not a program"), ("y=", "not a program"), ("y=x**9", "not of the language"),
        ("y=1_000", "not of the language"), ("y=٣", "not of the language"), ("y=x.real", "not of the language"),
        ("y='a'", "not of the language"), ("y=9999999999", "not of the language"), ("y=0x10", "not of the language"),
        ("y=1e5", "not of the language"), ("y=1if x else 2", "not of the language"), ("Y=x", "not of the language"),
        ("y=x[0]", "not of the language"), ("y=lambda:x", "not of the language"), ("y=x*3\x00", "not of the language"),
        ("y=x if x else 2", "not an expression of the language"), ("y=x and 2", "not an expression of the language"),
        ("y=x==2", "not an expression of the language"), ("y=not x", "not an expression of the language"),
        ("y=x,2", "not an expression of the language"), ("y=x/2", "not an expression of the language"),
        ("y=min(x)", "not an expression of the language"), ("y=min(*x,1)", "not an expression of the language"),
        ("y=min(x,1,key=x)", "not an expression of the language"), ("y=abs(x)", "not an expression of the language"),
        ("y=print(x)", "not an expression of the language"), ("print(x,2)", "not an expression of the language"),
        ("y=min", "not an expression of the language"), ("y=max(min,1)", "not an expression of the language"),
        ("y=(z,x)", "not an expression of the language"), ("y=min(x,1)(2)", "not an expression of the language"),
        ("y=z=x", "not a statement of the language"), ("y,z=x", "not a statement of the language"),
        ("y+=x", "not a statement of the language"), ("del x", "not a statement of the language"),
        ("import os", "not a statement of the language"), ("pass", "not a statement of the language"),
        ("print=x", "print is assigned"), ("min=x", "min is assigned"), ("x" * 4001, "too long"),
        ("y=" + "(" * 300 + "x" + ")" * 300, "not a program"), ("y=" + "-" * 60 + "x", "nested too deeply"),
        ("y=" + "x+" * 1900 + "x", "nested too deeply"),
    ],
)  # fmt: skip
def test_what_is_no_program_is_refused(text, said):
    with pytest.raises(ProgramError) as caught:
        parse(text)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    "text, said",
    [
        ("y=z", "unknown name"), ("y=x//0", "division by zero"), ("y=x%(x-x)", "division by zero"),
        ("y=x*999999999;y=y*y", "too large a value"), ("y=-999999999*999999999", "too large a value"),
    ],
)  # fmt: skip
def test_what_cannot_go_on_ends(text, said):
    with pytest.raises(ProgramError, match=said):
        run(parse(text), 7)
    assert outcome(parse(text), 7) is None


def test_values_are_bounded_exactly():
    assert run(parse("y=x*1000000"), 10**6) == LARGEST
    assert outcome(parse("y=x*1000000+1"), 10**6) is None


def test_the_longest_programs_end_soon():
    problem = FAMILIES["program_rebuild"].generate(0, 40)
    inner = "x" + "+1" * 55
    for program in (";".join([f"y={inner}"] * 35), ";".join(["y=min(x,1)"] * 360), "x;" * 1999 + "x"):
        assert parse(program)
        start = time.process_time()
        assert not FAMILIES["program_rebuild"].verify(problem, program).correct
        assert time.process_time() - start < 0.5


def test_any_program_that_is_right_everywhere_counts():
    family = FAMILIES["program_rebuild"]
    problem = next(p for p in (family.generate(seed, 0) for seed in range(99)) if p.hidden["answer"] == "y=x*2")
    for program in ("y=x*2", "x+x", "print(2*x)", "a=x\nb=a+a", "y = -(-x) * 2", "z=x;max(z*2,z*2)"):
        assert family.verify(problem, program).correct, program
    for program, said in (("y=x*3", "wrong on shown examples"), ("y=q", "wrong on shown examples")):
        verdict = family.verify(problem, program)
        assert (verdict.correct, verdict.format, verdict.error) == (False, True, said)
    assert not family.verify(problem, "twice x").format


def test_held_out_examples_decide():
    family, found = FAMILIES["program_rebuild"], 0
    for seed in range(30):
        problem = family.generate(seed, 2)
        shown, held_out = problem.hidden["shown"], problem.hidden["held_out"]
        assert len(shown) >= 3 and len(held_out) >= 3
        assert sorted(x for x, _ in shown + held_out) == list(range(12))
        assert all(executed(problem.hidden["answer"], x) == y for x, y in shown + held_out)
        assert problem.prompt == "fit " + " ".join(f"{x}>{y}" for x, y in shown)
        # Right on what is shown, and there alone: Lagrange by products that are 0 on the shown inputs.
        vanishing = "*".join(f"(x-{x})" for x, _ in shown)
        verdict = family.verify(problem, f"{problem.hidden['answer']};z={vanishing};z=max(-1,min(1,z));y+z*z")
        if len(shown) < 6:  # else the product is too large a value
            found += 1
            assert (verdict.correct, verdict.format, verdict.error) == (False, True, "wrong on held-out examples")
    assert found > 5


def test_examples_leave_no_other_simple_program():
    texts = [f"{sign}(x,{c})" if sign in ("min", "max") else f"x{sign}{c}"
             for sign in ("+", "-", "*", "//", "%", "min", "max") for c in range(1, 10)]  # fmt: skip
    family = FAMILIES["program_rebuild"]
    for problem in (family.generate(seed, 0) for seed in range(40)):
        if len(problem.hidden["held_out"]) > 3:
            fit = [text for text in texts if all(eval(text, {"x": x}) == y for x, y in problem.hidden["shown"])]
            assert fit and all(family.verify(problem, text).correct for text in fit)


def test_other_right_inputs_count():
    problem = next(
        p for p in (FAMILIES["program_input"].generate(seed, 1) for seed in range(99)) if p.prompt.endswith("y=x%7")
    )
    answer = int(FAMILIES["program_input"].explain(problem)[1])
    for x in (answer, answer + 7, answer - 7, answer + 700):
        assert FAMILIES["program_input"].verify(problem, str(x)).correct
    assert not FAMILIES["program_input"].verify(problem, str(answer + 1)).correct


def test_inputs_out_of_bounds_do_not_falsify():
    family = FAMILIES["falsify"]
    for seed in range(20):
        problem = family.generate(seed, 0)
        right, wrong = problem.prompt.split()[2].split("|")
        differing = [x for x in range(10) if executed(right, x) != executed(wrong, x)]
        assert 1 <= len(differing) <= 5
        assert [x for x in range(10) if family.verify(problem, str(x)).correct] == differing
        assert family.verify(problem, "10").error == family.verify(problem, "999999999").error == "out of bounds"
        assert not family.verify(problem, "-1").format


@pytest.mark.parametrize(
    "name, share", [("falsify", 0.5), ("program_input", 0.3), ("program_output", 0.15), ("chain", 0.3)]
)
def test_no_answer_is_right_too_often(name, share):
    problems = [FAMILIES[name].generate(seed, 2) for seed in range(150)]
    for answer in map(str, range(-5, 15)):
        assert sum(FAMILIES[name].verify(problem, answer).correct for problem in problems) < share * len(problems)
