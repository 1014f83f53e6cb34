"""Asks math-verify, one question a line: a process of its own, since a question may never end.

`python math_worker.py`: after a line `ready`, a JSON list [gold, answer] on standard input gives one word on standard
output. Only LaTeX is read: plain expressions would go through sympy's `parse_expr`, which evaluates Python.
"""

import contextlib
import io
import json
import os
import sys


def main() -> None:
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)  # what libraries print is no reply
        try:
            from math_verify import LatexExtractionConfig, parse, verify
        except ImportError as error:
            print(f"missing {error}", file=replies, flush=True)
            return
        config = [LatexExtractionConfig()]

        def read(text: str) -> list:
            return parse(f"${text}$", extraction_config=config, parsing_timeout=None)

        print("ready", file=replies, flush=True)
        for line in sys.stdin:
            print(judge(read, verify, *json.loads(line)), file=replies, flush=True)


def judge(read, verify, gold: str, answer: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            right, given = read(gold), read(answer)
            if not right or not given:
                return "unreadable"
            return "equal" if verify(right, given, timeout_seconds=None) else "different"
        except (Exception, RecursionError):
            return "unreadable"


if __name__ == "__main__":
    main()
