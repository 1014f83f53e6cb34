r"""Exact values of LaTeX: numbers made of rationals, square roots and π, and tuples, intervals and sets of them.

A number is a sum of terms q √r π^k with rational q and squarefree r: one dict {(r, k): q}. Such a dict is unique for
its number (the √r are independent over the rationals, π is transcendental): numbers are equal if their dicts are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator
from fractions import Fraction

Terms = dict[tuple[int, int], Fraction]

_LONGEST = 400
_MOST_DIGITS = 400
_LARGEST_RADICAND = 10**10
_LARGEST_POWER = 64
_MOST_TERMS = 32
_TOKEN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+|\\[a-zA-Z]+|\\.|[^\s\\])")
_GROUPED = re.compile(r"([+-]?)(\d{1,3}(?:(?:,|\{,\}|\\,)\d{3})+)(\.\d*)?")
_OPEN, _CLOSE = "([{", ")]}"


class Unreadable(ValueError):
    """Not of the small language that is read here."""


def value(text: str) -> Hashable | None:
    r"""Returns what two normalised texts have in common if and only if they mean the same; None if not read here.

    Args:
        text: LaTeX of a number (`\frac{1}{2}`, 0.5, `\frac{1+\sqrt{5}}{2}`, `2\pi`), a tuple or interval `(1, 2]`, a
            set `\{1, 2\}`, or a bare list `1, 2`, whose order does not count.
    """
    if len(text) > _LONGEST:
        return None
    try:
        return _collection(text)
    except (Unreadable, RecursionError, ZeroDivisionError):
        return None


def _collection(text: str) -> Hashable:
    text = text.strip()
    if match := _GROUPED.fullmatch(text):
        return _hashable(_Reader(match[1] + re.sub(r"\D", "", match[2]) + (match[3] or "")).read())
    if text.startswith(r"\{") and text.endswith(r"\}"):
        inner = text[2:-2].strip()
        return ("set", frozenset(_collection(part) for part in _parts(inner))) if inner else ("set", frozenset())
    parts = list(_parts(text))
    if len(parts) > 1:
        return ("list", tuple(sorted((_collection(part) for part in parts), key=repr)))
    if text[:1] in ("(", "[") and text[-1:] in (")", "]"):
        inner = list(_parts(text[1:-1]))
        if len(inner) > 1:
            return (text[0], tuple(_collection(part) for part in inner), text[-1])
    if re.fullmatch(r"[+-]?\\infty", text):
        return text.removeprefix("+")
    return _hashable(_Reader(text).read())


def _parts(text: str) -> Iterator[str]:
    """Splits at the commas that no bracket holds. Brackets need not match in kind: (0, 1] is one part."""
    depth, begin, skip = 0, 0, False
    for i, letter in enumerate(text):
        if letter in _OPEN and not (skip and letter != "{"):
            depth += 1
        elif letter in _CLOSE:
            depth -= 1
            if depth < 0:
                raise Unreadable(text)
        elif letter == "," and not depth:
            yield text[begin:i]
            begin = i + 1
        skip = letter == "\\"
    if depth:
        raise Unreadable(text)
    yield text[begin:]


def _hashable(terms: Terms) -> Hashable:
    return frozenset(terms.items())


class _Reader:
    r"""Reads a number by recursive descent: sums, products, `/` and `\frac`, whole powers, `\sqrt`, `\pi`."""

    def __init__(self, text: str):
        self.tokens, end = [], 0
        for match in _TOKEN.finditer(text):
            if match.start() != end:
                raise Unreadable(text)
            self.tokens.append(match[1])
            end = match.end()
        if text[end:].strip():
            raise Unreadable(text)
        self.at = 0

    def read(self) -> Terms:
        result = self.sum()
        if self.at != len(self.tokens):
            raise Unreadable(self.peek())
        return result

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise Unreadable(token)
        self.at += 1
        return token

    def sum(self) -> Terms:
        result = self.product()
        while self.peek() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            result = _add(result, self.product(), sign)
        return result

    def product(self) -> Terms:
        sign = 1
        while self.peek() in ("+", "-"):
            sign *= 1 if self.take() == "+" else -1
        start, result = self.at, self.power()
        while True:
            token = self.peek()
            if token in ("*", r"\cdot", r"\times"):
                self.take()
                result = _multiply(result, self.signed())
            elif token in ("/", r"\div"):
                self.take()
                result = _multiply(result, _inverse(self.signed()))
            elif token in (r"\frac", r"\sqrt", r"\pi", "π", "("):
                # 2\frac{1}{2} is two and a half, 2\sqrt{2} and 2(3) are products.
                mixed = token == r"\frac" and self.at == start + 1 and self.tokens[start].isdigit()
                factor = self.power()
                rational = set(factor) <= {(1, 0)}
                proper = rational and 0 < factor.get((1, 0), Fraction(0)) < 1
                result = _add(result, factor) if mixed and proper else _multiply(result, factor)
            else:
                return {key: sign * factor for key, factor in result.items()}

    def signed(self) -> Terms:
        if self.peek() == "-":
            self.take()
            return _multiply(_number(-1), self.power())
        return self.power()

    def power(self) -> Terms:
        base = self.factor()
        if self.peek() != "^":
            return base
        self.take()
        exponent = self.group()
        if not set(exponent) <= {(1, 0)}:
            raise Unreadable("^")
        exponent = exponent.get((1, 0), Fraction(0))
        if exponent.denominator == 2 and exponent.numerator == 1:
            return _root(base)
        if exponent.denominator != 1 or abs(exponent) > _LARGEST_POWER:
            raise Unreadable("^")
        base = _inverse(base) if exponent < 0 else base
        result = _number(1)
        for _ in range(abs(int(exponent))):
            result = _multiply(result, base)
        return result

    def group(self) -> Terms:
        """An argument of LaTeX: braces, or one digit or command without them."""
        if self.peek() == "{":
            self.take()
            result = self.sum()
            self.take("}")
            return result
        token = self.peek()
        if token.isdigit() and len(token) > 1:  # \frac12
            self.tokens[self.at : self.at + 1] = list(token)
        return self.factor()

    def factor(self) -> Terms:
        token = self.take()
        if token.isascii() and (token[0].isdigit() or (token[0] == "." and len(token) > 1)):
            return _number(Fraction(token))
        if token in ("(", "{"):
            result = self.sum()
            self.take(")" if token == "(" else "}")
            return result
        if token == r"\frac":
            above = self.group()
            return _multiply(above, _inverse(self.group()))
        if token == r"\sqrt":
            if self.peek() == "[":
                raise Unreadable(token)
            return _root(self.group())
        if token in (r"\pi", "π"):
            return {(1, 1): Fraction(1)}
        raise Unreadable(token)


def _number(number: int | Fraction) -> Terms:
    return {(1, 0): Fraction(number)} if number else {}


def _add(a: Terms, b: Terms, sign: int = 1) -> Terms:
    result = dict(a)
    for key, factor in b.items():
        result[key] = result.get(key, Fraction(0)) + sign * factor
    return {key: factor for key, factor in result.items() if factor}


def _multiply(a: Terms, b: Terms) -> Terms:
    if len(a) * len(b) > _MOST_TERMS:
        raise Unreadable("too many terms")
    result: Terms = {}
    for (r, k), p in a.items():
        for (s, l), q in b.items():
            common = math.gcd(r, s)  # √r √s = common √(rs / common²)
            factor = p * q * common
            if max(factor.numerator.bit_length(), factor.denominator.bit_length()) > 4 * _MOST_DIGITS:
                raise Unreadable("too long a number")
            result = _add(result, {(r * s // common**2, k + l): factor})
    return result


def _inverse(a: Terms) -> Terms:
    """1 / a, for a single term, or a + b√r."""
    if not a:
        raise ZeroDivisionError
    if len(a) == 1:
        ((r, k), q) = next(iter(a.items()))
        return {(r, -k): 1 / (q * r)}
    if len(a) == 2 and all(k == 0 for _, k in a):
        (first, p), (second, q) = a.items()
        conjugate = {first: p, second: -q}
        norm = p * p * first[0] - q * q * second[0]
        return {key: factor / norm for key, factor in conjugate.items()}
    raise Unreadable("division by a sum")


def _root(a: Terms) -> Terms:
    if not a:
        return {}
    if set(a) != {(1, 0)} or a[(1, 0)] < 0:
        raise Unreadable("root of a root")
    q = a[(1, 0)]
    radicand = q.numerator * q.denominator  # √(n/d) = √(nd) / d
    outside, inside = _squarefree(radicand)
    return {(inside, 0): Fraction(outside, q.denominator)}


def _squarefree(n: int) -> tuple[int, int]:
    """(a, b) with n = a² b and b squarefree."""
    if math.isqrt(n) ** 2 == n:
        return math.isqrt(n), 1
    if n > _LARGEST_RADICAND:
        raise Unreadable("too large a radicand")
    outside, inside, divisor = 1, 1, 2
    while divisor * divisor <= n:
        count = 0
        while n % divisor == 0:
            n //= divisor
            count += 1
        outside *= divisor ** (count // 2)
        inside *= divisor ** (count % 2)
        divisor += 1
    return outside, inside * n
