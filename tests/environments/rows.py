"""Rows of benchmark files, one of each kind, and files of them."""

import base64
import json
import zlib
from pathlib import Path

INTEGER = {"id": "i", "problem": "What is 6 * 7?", "kind": "integer", "answer": 42, "source": "made up"}
LATEX = {"id": "l", "problem": "Solve $2x = 1$.", "kind": "latex", "answer": r"\frac{1}{2}"}
EXACT = {"id": "e", "problem": "Sort 3 1 2.", "kind": "exact", "answer": "1 2 3"}
CHOICE = {"id": "c", "problem": "Which is even?", "kind": "choice", "choices": ["4", "5", "7", "9"], "answer": 0}
CODE = {
    "id": "p", "problem": "Print twice the number.", "kind": "code", "date": "2025-03-01",
    "tests": [{"input": "2\n", "output": "4\n"}, {"input": "-1\n", "output": "-2\n"}],
}  # fmt: skip
FUNCTION = {
    "id": "f", "problem": "Twice x.", "kind": "code",
    "starter_code": "class Solution:\n    def twice(self, x):\n        ",
    "tests": [{"input": "3", "output": "6", "testtype": "functional", "fn_name": "twice"}],
}  # fmt: skip
INSTRUCTIONS = {
    "id": "n", "problem": "Say hello in at least three words, without commas.", "kind": "instructions",
    "instructions": [
        {"name": "no_commas"},
        {"name": "words", "arguments": {"relation": "at least", "number": 3}},
    ],
}  # fmt: skip
EVERY = (INTEGER, LATEX, EXACT, CHOICE, CODE, FUNCTION, INSTRUCTIONS)


def write(path: Path, *rows: dict) -> Path:
    """A jsonl file of these rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def packed(data: bytes) -> str:
    """Base64 of zlib."""
    return base64.b64encode(zlib.compress(data)).decode()
