"""Functions that answer aggregation prompts in tests."""

NUMBER = 1


def longest(problem, attempts):
    """Goes on with the longest attempt."""
    return f"Of {len(attempts)} I like '{max(attempts, key=len)}'.</think>\\boxed{{{problem.hidden['answer']}}}"


def plain(problem, attempts):
    """An answer without reasoning."""
    return "42"


def fails(problem, attempts):
    if problem.id == "b":
        raise ValueError("no idea")
    return "42"


def silent(problem, attempts):
    return " "
