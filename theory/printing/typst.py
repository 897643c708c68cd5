"""SymPy expressions as Typst math, for the report; SymPy prints LaTeX itself but no Typst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import sympy as sp
from sympy.printing.precedence import PRECEDENCE, precedence
from sympy.printing.printer import Printer

from theory.arguments import checked

__all__ = ["typst"]

_GREEK = {"sigma", "Phi", "lambda", "delta", "alpha"}


class _TypstPrinter(Printer):  # type: ignore[misc]  # SymPy has no types
    """Prints what the bounds of this project are made of; anything else raises."""

    printmethod = "_typst"
    _default_settings: ClassVar[dict[str, Any]] = {"symbol_names": {}}

    def emptyPrinter(self, expr: object) -> str:
        raise TypeError(f"expression must be made of sums, products, roots and symbols, got {type(expr).__name__}")

    def _inside(self, expr: sp.Basic, level: int) -> str:
        text = self._print(expr)
        return f"({text})" if precedence(expr) < level else text

    def _print_Symbol(self, expr: sp.Symbol) -> str:
        return str(self._settings["symbol_names"].get(expr, _name(expr.name)))

    def _print_Integer(self, expr: sp.Integer) -> str:
        return str(expr.p)

    def _print_Rational(self, expr: sp.Rational) -> str:
        return f"frac({expr.p}, {expr.q})"

    def _print_Indexed(self, expr: sp.Indexed) -> str:
        index = ", ".join(self._print(one) for one in expr.indices)
        return f"{_name(str(expr.base.label))}_({index})"

    def _print_Add(self, expr: sp.Add) -> str:
        ordered = sorted(sp.Add.make_args(expr), key=lambda term: (term.could_extract_minus_sign(), term.is_number))
        first, *others = (self._print(term) for term in ordered)
        result: str = first + "".join(f" - {text[1:]}" if text.startswith("-") else f" + {text}" for text in others)
        return result

    def _print_Mul(self, expr: sp.Mul) -> str:
        if expr.could_extract_minus_sign():
            return f"-{self._inside(-expr, PRECEDENCE['Mul'])}"
        if any(isinstance(one, sp.Pow) and one.exp in (sp.S.Half, -sp.S.Half) for one in expr.args):
            return f"sqrt({self._print(expr**2)})"
        numerator, denominator = sp.fraction(expr)
        if denominator != 1:
            return f"frac({self._print(numerator)}, {self._print(denominator)})"
        return " ".join(self._inside(factor, PRECEDENCE["Mul"]) for factor in _in_order(numerator))

    def _print_Pow(self, expr: sp.Pow) -> str:
        if expr.exp == sp.Rational(1, 2):
            return f"sqrt({self._print(expr.base)})"
        if expr.exp.could_extract_minus_sign():
            return f"frac(1, {self._print(1 / expr)})"
        return f"{self._inside(expr.base, PRECEDENCE['Pow'] + 1)}^({self._print(expr.exp)})"

    def _print_log(self, expr: sp.log) -> str:
        argument = self._print(expr.args[0])
        return f"ln {argument}" if expr.args[0].is_Atom else f"ln({argument})"

    def _print_Min(self, expr: sp.Min) -> str:
        return f"min({', '.join(sorted(map(self._print, expr.args), key=len))})"

    def _print_Function(self, expr: sp.Function) -> str:
        return f"{_name(expr.func.__name__)}({', '.join(map(self._print, expr.args))})"

    def _print_binomial(self, expr: sp.binomial) -> str:
        return f"binom({', '.join(map(self._print, expr.args))})"

    def _limits(self, sign: str, expr: Any) -> str:
        index, first, last = expr.limits[0]
        body = self._inside(expr.function, PRECEDENCE["Mul"])
        return f"{sign}_({self._print(index)} = {self._print(first)})^({self._print(last)}) {body}"

    def _print_Sum(self, expr: sp.Sum) -> str:
        return self._limits("sum", expr)

    def _print_Product(self, expr: sp.Product) -> str:
        return self._limits("product", expr)


@checked
def typst(expr: sp.Basic, *, symbol_names: Mapping[sp.Symbol, str] | None = None) -> str:
    """Return an expression as Typst math, without the dollar signs.

    Args:
        expr: sums, products, powers, logarithms, minima, finite sums and products over symbols.
        symbol_names: symbols to print in another way, as in ``sympy.latex``.

    Raises:
        TypeError: if it holds something else.

    >>> n, q = sp.symbols("n q", positive=True)
    >>> typst(sp.sqrt(2 * q * sp.log(2) / n))
    'sqrt(frac(2 q ln 2, n))'
    """
    return str(_TypstPrinter({"symbol_names": dict(symbol_names or {})}).doprint(expr))


def _in_order(product: sp.Expr) -> list[sp.Expr]:
    """Numbers, then symbols as SymPy orders them, then logarithms, then sums and products."""

    def place(factor: sp.Expr) -> int:
        if factor.is_number and not factor.has(sp.log):
            return 0
        if factor.has(sp.Sum, sp.Product):
            return 3
        return 2 if isinstance(factor, sp.log) else 1

    return sorted(sp.Mul.make_args(product), key=place)


def _name(name: str) -> str:
    head, _, index = name.partition("_")
    text = head if len(head) == 1 or head in _GREEK else f'"{head}"'
    return f"{text}_({index if len(index) < 2 else _subscript(index)})" if index else text


def _subscript(index: str) -> str:
    return " ".join(index) if index.isalnum() and len(index) <= 3 else f'"{index}"'
