"""Every line of the working is true, by oracles that work otherwise; the ends of lines lead to the answer."""

import ast
import itertools
import re

import pytest

from tests.environments.families.oracles import executed, graph, simple_paths, solutions, true_of
from zaya_jax.environments.families import FAMILIES
from zaya_jax.environments.families.functions import OPERATORS


def worked(name, difficulties=(0, 1, 3, 6), seeds=range(8)):
    """Problems with the lines of their working and the answers."""
    for difficulty, seed in itertools.product(difficulties, seeds):
        problem = FAMILIES[name].generate(seed, difficulty)
        reasoning, answer = FAMILIES[name].explain(problem)
        yield problem.prompt, reasoning.split("\n"), answer


def numbered(lines):
    """Steps in their order, and marks by the step that they stand behind: every fourth and the last."""
    steps, marks = [], {}
    for line in lines:
        label, sign, rest = re.fullmatch(r"(\d+)([:=])(.*)", line).groups()
        if sign == ":":
            steps.append(rest)
        else:
            marks[int(label)] = rest
        assert int(label) == len(steps)
    assert list(marks) == [n for n in range(1, len(steps) + 1) if n % 4 == 0 or n == len(steps)]
    return steps, marks


def test_cipher():
    for prompt, lines, answer in worked("cipher"):
        steps, marks = numbered(lines)
        pairs, text = prompt.removeprefix("cipher ").split("|")
        assert all(step in pairs.split() for step in steps)
        assert "".join(step[0] for step in steps) == text and "".join(step[1] for step in steps) == answer
        assert all(mark == answer[:number] for number, mark in marks.items())


def test_addition():
    for prompt, lines, answer in worked("addition"):
        steps, marks = numbered(lines)
        a, b = map(int, prompt.removeprefix("add ").split("+"))
        for place, step in enumerate(steps):
            x, y, carry, total = map(int, re.fullmatch(r"(\d)\+(\d)\+([01])=(\d\d)", step).groups())
            assert (x, y) == (a // 10**place % 10, b // 10**place % 10)
            assert x + y + carry == total and carry == (a % 10**place + b % 10**place) // 10**place
        assert len(steps) == len(str(max(a, b)))
        *before, last = marks.items()
        assert all(int(mark) == (a + b) % 10**number and len(mark) == number for number, mark in before)
        assert last[1] == str(a + b) == answer


def test_automaton():
    for prompt, lines, answer in worked("automaton"):
        steps, marks = numbered(lines)
        _, rule, row = prompt.split()
        assert [step[:3] for step in steps] == [(row * 3)[len(row) + i - 1 :][:3] for i in range(len(row))]
        assert all(f"{int(rule):08b}"[7 - int(step[:3], 2)] == step[4] for step in steps)
        assert all(mark == answer[:number] for number, mark in marks.items())


def test_chain():
    for prompt, lines, answer in worked("chain"):
        _, value, operations, modulus, count = prompt.split()
        assert len(lines) == int(count[1:])
        cycle = itertools.cycle(re.findall(r"[+*-]\d", operations))
        for number, (line, operation) in enumerate(zip(lines, cycle), 1):
            left, made = line.split("=")
            assert left == f"{number}:{value}{operation}"
            assert (eval(left.split(":")[1]) - int(made)) % int(modulus[1:]) == 0 <= int(made) < int(modulus[1:])
            value = made
        assert value == answer


def test_a_chain_outgrows_a_budget_and_its_end_suffices_to_go_on():
    for prompt, lines, answer in worked("chain", difficulties=(2, 4, 8)):
        operations, modulus = re.findall(r"[+*-]\d", prompt.split()[2]), int(prompt.split()[3][1:])
        assert len("\n".join(lines)) > 80
        for cut in range(60, len("\n".join(lines)), 37):
            tail = "\n".join(lines)[:cut][-32:]
            number, value = re.findall(r"(\d+):[^=\n]*=(\d+)\n", tail)[-1]
            value = int(value)
            for place in range(int(number), len(lines)):
                value = eval(f"({value}{operations[place % len(operations)]}) % {modulus}")
            assert str(value) == answer


def test_sorting():
    for prompt, lines, _ in worked("sorting"):
        steps, marks = numbered(lines)
        numbers = {int(number) for number in prompt.split()[1:]}
        assert all(sum(other < int(step) for other in numbers) == place for place, step in enumerate(steps))
        assert {int(step) for step in steps} == numbers
        assert all(mark.split() == steps[:number] for number, mark in marks.items())


def test_shortest_path():
    for prompt, lines, answer in worked("shortest_path"):
        source, target, edges = graph(prompt)
        lengths = []
        for number, line in enumerate(lines, 1):
            label, path, length = re.fullmatch(r"(\d+):([a-z]+)=(\d+)", line).groups()
            assert int(label) == number and path[0] == source
            found = dict(simple_paths(edges, (source,), path[-1]))
            assert found[tuple(path)] == min(found.values()) == int(length)
            lengths.append(int(length))
        assert lengths == sorted(lengths) and path[-1] == target and path == answer


def test_the_target_is_the_farthest_and_every_node_is_reached():
    for prompt, _, _ in worked("shortest_path"):
        source, target, edges = graph(prompt)
        nodes = set().union(*edges)
        nearest = {node: min(dict(simple_paths(edges, (source,), node)).values()) for node in nodes}
        assert nearest[target] == max(nearest.values())


def test_what_is_wrong_with_a_path():
    family = FAMILIES["shortest_path"]
    graphs = [(family.generate(seed, 4), *graph(family.generate(seed, 4).prompt)) for seed in range(40)]
    apart = [
        (problem, source + target)
        for problem, source, target, edges in graphs
        if frozenset(source + target) not in edges
    ]
    assert len(apart) > 5
    assert {family.verify(*each).error for each in apart} == {"not along edges"}
    said = set()
    for problem, source, target, edges in graphs:
        assert family.verify(problem, source).error == "not from source to target"
        assert family.verify(problem, family.explain(problem)[1][::-1]).error == "not from source to target"
        paths = {"".join(path): length for path, length in simple_paths(edges, (source,), target)}
        for path, length in paths.items():
            verdict = family.verify(problem, path)
            assert verdict.correct == (length == min(paths.values()))
            said.add(verdict.error)
        assert not family.verify(problem, target.join(source + source)).correct
    assert said == {None, "not the shortest"}


def test_knights():
    for prompt, lines, _ in worked("knights"):
        steps, marks = numbered(lines)
        said = dict(person.split(":") for person in prompt.split()[1:])
        names = "".join(said)
        (kinds,) = solutions(said, names)
        concluded = {}
        for step in steps:
            speaker, sign, statement, about, found = re.fullmatch(r"([a-z])([+-]?):(.+)>([a-z])([+-])", step).groups()
            assert said[speaker] == statement
            assert sign == ("-+"[concluded[speaker]] if speaker in concluded else "")
            # Whoever is consistent with what is known, and with this statement alone, is what is concluded.
            fit = [each for each in solutions({}, names) if concluded.items() <= each.items()]
            fit = [each for each in fit if true_of(statement, each) == each[speaker]]
            assert {each[about] for each in fit} == {found == "+"} == {kinds[about]}
            concluded[about] = kinds[about]
        assert set(concluded) == set(names)
        for number, mark in marks.items():
            known = [re.search(r">([a-z][+-])", step)[1] for step in steps[:number]]
            assert mark == "".join(sorted(known))


def test_program_output():
    for prompt, lines, answer in worked("program_output"):
        program = prompt.removeprefix("out ")
        values: dict = {}
        exec(program.rpartition(";")[0], values)
        for line in lines:
            name, *rest = line.split("=")
            assert {eval(each) for each in rest} == {values[name]}
        used = [part.partition("=") for part in program.split(";")[:-1]]
        for line, (name, _, expression) in zip(lines, used, strict=True):  # numbers in the place of names
            assert line.split("=")[1].strip("()") == filled(expression, values).strip("()") and line[0] == name
        assert lines[-1].split("=")[-1] == answer


def filled(expression, values):
    def value(match):
        made = str(values[match[0]])
        return f"({made})" if made[0] == "-" and match.start() and expression[match.start() - 1] in "+-*/%" else made

    return re.sub(r"\b[a-z]\b", value, expression)


def operation_values(program, x):
    """The values of all operations of a program of x and y, in their order, by Python."""
    values, found = {"x": x}, []
    for statement in ast.parse(program).body:
        nested, node = [], statement.value
        while not isinstance(node, ast.Name):
            nested.append(node)
            node = node.left if isinstance(node, ast.BinOp) else node.args[0]
        found += [eval(compile(ast.Expression(each), "", "eval"), values) for each in reversed(nested)]
        values["y"] = found[-1]
    return found


def listed(values):
    return ",".join(map(str, values))


def test_program_input():
    for prompt, lines, answer in worked("program_input"):
        _, wanted, program = prompt.split()
        assert lines == [f"{x}:{listed(operation_values(program, x))}" for x in range(len(lines))]
        assert [line.endswith((f":{wanted}", f",{wanted}")) for line in lines] == [False] * int(answer) + [True]


def test_falsify():
    for prompt, lines, answer in worked("falsify"):
        right, wrong = prompt.split()[2].split("|")
        for x, line in enumerate(lines):
            sign = "=" if executed(right, x) == executed(wrong, x) else "!"
            assert line == f"{x}:{listed(operation_values(right, x))}{sign}{listed(operation_values(wrong, x))}"
            assert (sign == "!") == (x == len(lines) - 1 == int(answer))


def test_program_rebuild():
    for prompt, lines, answer in worked("program_rebuild"):
        examples = [tuple(map(int, pair.split(">"))) for pair in prompt.split()[1:]]
        for line in lines:
            program, tries = line.split(":")
            said = [f"{x}>{executed(program, x)}" + "!" * (executed(program, x) != y) for x, y in examples]
            first = next((place for place, text in enumerate(said) if text.endswith("!")), len(said) - 1)
            assert tries.split() == said[: first + 1]
            assert line.endswith("!") == (line != lines[-1])
        assert lines[-1].split(":")[0] == answer


@pytest.mark.parametrize("sign", OPERATORS)
def test_all_operators_are_drawn(sign):
    programs = " ".join(
        FAMILIES[name].generate(seed, 4).prompt for name in ("falsify", "program_output") for seed in range(60)
    )
    assert re.search(rf"[xy0-9)]{re.escape(sign)}[0-9]" if len(sign) < 3 else rf"{sign}\(", programs)
