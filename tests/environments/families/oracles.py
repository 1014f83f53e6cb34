"""Judges of answers that know a prompt alone, and decide by other means than the library does."""

import ast
import contextlib
import io
import itertools
import re


def executed(program: str, x: int | None = None) -> int | None:
    """What Python itself makes of a program of ours: what it prints, or y."""
    values: dict = {} if x is None else {"x": x}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, values)
    return int(printed.getvalue()) if printed.getvalue() else values["y"]


def is_program(text: str) -> bool:
    """Whether a changed answer is still harmless enough to be run: names, numbers, operators."""
    odd = "**" in text or re.search(r"\b[0-9]+[a-z]", text)
    return bool(re.fullmatch(r"[a-z0-9+\-*/%(),;= \n]*", text)) and not odd


def tried(program: str, x: int) -> int | None:
    """The value of the last statement of a program that may be wrong in any way; None without one."""
    try:
        body = ast.parse(program).body
        if not all(isinstance(each, ast.Expr | ast.Assign) for each in body):
            return None
        if any(isinstance(each, ast.Assign) and len(each.targets) > 1 for each in body):
            return None
        *rest, last = body
        values = {"x": x}
        exec(ast.unparse(ast.Module(rest, [])), values)
        result = eval(ast.unparse(last.value), values)
        return result if type(result) is int else None
    except (SyntaxError, ValueError, TypeError, NameError, ZeroDivisionError, AttributeError):
        return None


def simple_paths(edges: dict[frozenset, int], path: tuple[str, ...], target: str):
    """All of them from the end of a path, with their lengths."""
    if path[-1] == target:
        yield path, sum(edges[frozenset(pair)] for pair in itertools.pairwise(path))
        return
    for edge in edges:
        if path[-1] in edge:
            (node,) = edge - {path[-1]}
            if node not in path:
                yield from simple_paths(edges, (*path, node), target)


def graph(prompt: str) -> tuple[str, str, dict[frozenset, int]]:
    """Source, target and edges."""
    _, (source, target), *edges = prompt.split()
    return source, target, {frozenset(edge[:2]): int(edge[3:]) for edge in edges}


def true_of(statement: str, kinds: dict[str, bool]) -> bool:
    """Whether what somebody says holds."""
    if statement[0] in "+-":
        return kinds[statement[1:]] == (statement[0] == "+")
    a, sign, b = statement
    return (kinds[a] == kinds[b]) == (sign == "=")


def solutions(said: dict[str, str], names: str) -> list[dict[str, bool]]:
    """All kinds of these people under which knights alone say what is true."""
    assigned = (dict(zip(names, bits)) for bits in itertools.product((False, True), repeat=len(names)))
    return [kinds for kinds in assigned if all(true_of(said[name], kinds) == kinds[name] for name in said)]


def _cipher(prompt, answer):
    pairs, text = prompt.removeprefix("cipher ").split("|")
    return answer == text.translate(str.maketrans(dict(pair for pair in pairs.split(" "))))


def _addition(prompt, answer):
    a, b = prompt.removeprefix("add ").split("+")
    return answer == str(int(a) + int(b))


def _automaton(prompt, answer):
    _, rule, row = prompt.split()
    bits = [int(cell) for cell in row]
    around = [4 * bits[i - 1] + 2 * bits[i] + bits[(i + 1) % len(bits)] for i in range(len(bits))]
    return answer == "".join(f"{int(rule):08b}"[7 - index] for index in around)


def _chain(prompt, answer):
    _, value, operations, modulus, count = prompt.split()
    operations = re.findall(r"[+*-]\d", operations)
    for _, operation in zip(range(int(count[1:])), itertools.cycle(operations)):
        value = eval(f"({value}{operation}) % {modulus[1:]}")
    return answer == str(value)


def _output(prompt, answer):
    return answer == str(executed(prompt.removeprefix("out ")))


def _input(prompt, answer):
    _, wanted, program = prompt.split()
    return bool(re.fullmatch("-?[0-9]{1,6}", answer)) and executed(program, int(answer)) == int(wanted)


def _rebuild(prompt, answer):
    # What the prompt shows; the held-out examples are looked at in `test_programs`.
    examples = [map(int, pair.split(">")) for pair in prompt.split()[1:]]
    return is_program(answer) and all(tried(answer, x) == y for x, y in examples)


def _falsify(prompt, answer):
    _, bounds, programs = prompt.split()
    inside = bool(re.fullmatch("[0-9]{1,9}", answer)) and int(answer) <= int(bounds.split("-")[1])
    right, wrong = programs.split("|")
    return inside and executed(right, int(answer)) != executed(wrong, int(answer))


def _sorting(prompt, answer):
    given = [int(number) for number in prompt.split()[1:]]
    if not re.fullmatch(r"(0|[1-9][0-9]*)(\s+(0|[1-9][0-9]*))*", answer):
        return False
    found = [int(number) for number in answer.split()]
    return set(found) == set(given) and all(a < b for a, b in itertools.pairwise(found))


def _path(prompt, answer):
    source, target, edges = graph(prompt)
    lengths = {"".join(path): length for path, length in simple_paths(edges, (source,), target)}
    return lengths.get(answer) == min(lengths.values())


def _knights(prompt, answer):
    said = dict(person.split(":") for person in prompt.split()[1:])
    (kinds,) = solutions(said, "".join(said))
    return answer == "".join(name + "-+"[kind] for name, kind in kinds.items())


ORACLES = {
    "cipher": _cipher,
    "addition": _addition,
    "automaton": _automaton,
    "chain": _chain,
    "program_output": _output,
    "program_input": _input,
    "program_rebuild": _rebuild,
    "falsify": _falsify,
    "sorting": _sorting,
    "shortest_path": _path,
    "knights": _knights,
}
