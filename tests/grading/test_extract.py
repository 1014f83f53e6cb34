"""The final answer of a response: what is read, what is refused, and how long a hostile response takes."""

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.grading.extract import KINDS, extract

INTEGERS = [
    (r"So \boxed{42}.", "42"),
    (r"\boxed{070}", "70"),
    (r"\boxed{0}", "0"),
    (r"\boxed{999}", "999"),
    (r"\boxed{1000}", None),
    (r"\boxed{-5}", None),
    (r"\boxed{1,000}", None),
    (r"\boxed{0,070}", "70"),
    (r"First \boxed{1}, no: \boxed{2}", "2"),
    (r"\boxed{\text{ 17 }}", "17"),
    (r"$\boxed{$17$}$", "17"),
    (r"\fbox{8}", "8"),
    (r"\boxed {8}", "8"),
    (r"\boxed{12 or 13}", None),
    (r"\boxed{12, 13}", None),
    (r"\boxed{12.0}", None),
    (r"\boxed{12.5}", None),
    (r"\boxed{x=12}", None),
    (r"\boxed{12^\circ}", None),
    (r"\boxed{}", None),
    (r"\boxed{12", None),
    (r"The answer is 12, but \boxed{n}", None),
    ("The answer is 12.", "12"),
    ("**Answer:** 12", "12"),
    ("**Answer**: 012", "12"),
    ("The final answer is: $12$.", "12"),
    ("Answer:\n\n12\n", "12"),
    ("answer = 12", "12"),
    ("The answer is 12 or 13", None),
    ("The answer is about 12", None),
    ("The answer is not 12", None),
    ("The answer is 12\nNo, the answer is 13", "13"),
    ("The answer is " + "5" * 3000, None),
    ("The answer is 5" + " " * 3000 + "or 6", None),
    ("It is 12", None),
    ("12", None),
    ("١٢ \\boxed{١٢}", None),
    ("", None),
]
LATEX = [
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{a_{b_{c}}} and more", "a_{b_{c}}"),
    (r"\boxed{outer \boxed{inner}}", r"outer \boxed{inner}"),
    (r"\boxed{open \boxed{inner}", "inner"),
    (r"\boxed{1} then } and { \boxed{2}", "2"),
    (r"\boxed{f(x) = \{}", r"f(x) = \{"),
    (r"\fbox{x}", "x"),
    (r"no \boxed x", None),
    (r"Answer: $x^2 + 1$.", "$x^2 + 1$"),
    ("So the answer is \\sqrt{2}\nGood bye", r"\sqrt{2}"),
    ("nothing", None),
]
CHOICES = [
    (r"\boxed{C}", "C"),
    (r"\boxed{\text{C}}", "C"),
    (r"\boxed{\textbf{(C)}\ 12}", "C"),
    (r"\boxed{C) Paris}", "C"),
    (r"\boxed{(C)}", "C"),
    (r"\boxed{A \text{ or } B}", None),
    (r"\boxed{(A) or (B)}", None),
    (r"\boxed{Paris}", None),
    ("Answer: C", "C"),
    ("Answer: (C)", "C"),
    ("answer: **C**", "C"),
    ("the answer is **C**.", "C"),
    ("The correct answer is: **C. Rome**", "C"),
    ("The correct answer is option J, since ...", "J"),
    ("The answer is $\\textbf{B}$", "B"),
    ("**Answer: D) four**", "D"),
    ("The answer is A because it is", "A"),
    ("Thinking...\n(C)", "C"),
    ("Thinking...\n**C**", "C"),
    ("C", "C"),
    ("The answer is A good question", None),
    ("The answer is I think C", None),
    ("The answer is A or B", None),
    ("The answer is A, B", None),
    ("The answer is (A) and (B)", None),
    ("The answer is Europe", None),
    ("The answer is B-flat", None),
    ("The answer is K", None),
    ("The answer is c", None),
    ("A good plan is to go.", None),
    ("I do not know.", None),
    ("(C) is wrong, so is (D)", None),
    ("", None),
]
EXACT = [
    ("<answer> 1 2 3 </answer>", "1 2 3"),
    ("<answer>1</answer> no <answer>2</answer>", "2"),
    ("<answer>two\nlines</answer>", "two\nlines"),
    ("<answer></answer>", ""),
    ("<answer>open", "<answer>open"),
    (r"so \boxed{a b}", "a b"),
    ("first\n\n last \n\n", "last"),
    (" \n", None),
]
CODES = [
    ("```python\nprint(1)\n```", "print(1)\n"),
    ("```py\na\n```\n```python3\nb\n```\n```text\nout\n```", "b\n"),
    ("```\na\n```\nthen\n```\nb\n```", "b\n"),
    ("~~~python\na\n~~~", "a\n"),
    ("````python\n```\ninner\n```\n````", "```\ninner\n```\n"),
    ("```Python title=x\na\n```", "a\n"),
    ("```python\na\n```\n```python\ncut off", "a\n"),
    ("```python\ncut off", None),
    ("print(1)", None),
    ("", None),
]
TABLE = [
    (kind, *case)
    for kind, cases in zip(("integer", "latex", "choice", "exact", "code"), (INTEGERS, LATEX, CHOICES, EXACT, CODES))
    for case in cases
]


@pytest.mark.parametrize(("kind", "text", "answer"), TABLE)
def test_final_answer(kind, text, answer):
    assert extract(text, kind) == answer


def test_no_such_kind():
    with pytest.raises(UserError, match=r"no such kind of answer; expected integer, latex.*found 'number'"):
        extract("1", "number")


@given(st.integers(0, 999), st.integers(0, 3), st.text(string.ascii_letters + " .\n", max_size=40))
def test_any_integer_is_found_behind_any_prose(number, zeros, prose):
    text = f"{prose} \\boxed{{{'0' * zeros}{number}}} {prose}"
    assert extract(text, "integer") == str(number)


@given(st.text("{}\\boxedanswer: 1A<>/`\n*(", max_size=60), st.sampled_from(sorted(KINDS)))
def test_no_text_raises(text, kind):
    answer = extract(text, kind)
    assert answer is None or isinstance(answer, str)


PIECES = [
    "\\boxed{", "\\boxed", "{", "}", "\\", "\\{", "$", "answer is ", "answer", "answer: A\n", "<answer>", "</answer>",
    "<answer>a</answer>", "```\n", "```", "`", "```python\n", "\n", " ", "**", "1", "1,", "1,000", "A or ", "(A",
    "\\text{",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_a_hostile_megabyte_is_read_at_once(piece):
    begun = time.process_time()
    for before, size in (("", 10**6), ("\\boxed{", 10**5), ("answer is ", 10**5), ("```python\n", 10**5), ("$", 10**5)):
        text = before + piece * (size // len(piece))
        for kind in KINDS:
            extract(text, kind)
            extract(text + "}", kind)
    assert time.process_time() - begun < 20  # a quadratic one takes hours
