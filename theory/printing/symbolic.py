"""Every bound as a SymPy expression, derived and printed: LaTeX for papers, Typst for this project's report.

Letters as in arXiv:2606.13767: m_l inputs and n_l outputs of layer l, r rank, q bits per number, k links, sigma
the loss's sub-Gaussian parameter, N the size of the fine-tuning sample (printed |N|), a_l = |W0_l|, d_l = |dW_l|,
z_l = |s_l(0)|, lambda_l the activation's Lipschitz constant, C the input radius, Lambda the loss's constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import sympy as sp
from sympy.printing.latex import LatexPrinter

from theory.arguments import Count, checked
from theory.checks import check_integer
from theory.layers import Layers, from_list
from theory.methods import METHODS, Method, get_method
from theory.printing.typst import typst as print_typst

__all__ = [
    "Statement",
    "at_layers",
    "latex",
    "phi_by_recursion",
    "phi_closed",
    "statements",
    "table1_latex",
    "table1_numbers",
    "table1_root",
    "table1_rows",
    "table1_typst",
    "typst",
]

C, LOSS, SIGMA, R, Q, K, N, BITS, CHANGE, DELTA = sp.symbols("C Lambda sigma r q k N b D delta", positive=True)
PHI_BASE, INFORMATION = sp.symbols("Phi_W0 I", positive=True)
DEPTH = sp.Symbol("L", integer=True, positive=True)
LAYER, FROM = sp.symbols("l s", integer=True)
M, OUT, SUPPORT, A, D, Z, LIP = (sp.IndexedBase(name, positive=True) for name in ("m", "n", "S", *"adz", "lambda"))


@checked
def phi_closed(branch: Literal["update", "base"] = "update", *, depth: int | sp.Expr = DEPTH) -> sp.Expr:
    """Return theorem 1's correction term (arXiv:2606.13767, mended) in closed form.

    Args:
        branch: ``"update"`` for Phi_dW, ``"base"`` for Phi_W0.
        depth: number of layers, a number or a symbol.

    Raises:
        ValueError: if the branch is unknown.

    >>> phi_closed(depth=1).doit().expand()
    2*C*Lambda*d[1]*lambda[1]
    """
    kept = _kept(branch)

    def products(first: int | sp.Expr) -> sp.Expr:
        both = sp.Product(LIP[LAYER] * (A[LAYER] + D[LAYER]), (LAYER, first, depth))
        return both - sp.Product(LIP[LAYER] * kept[LAYER], (LAYER, first, depth))

    offsets = sp.Sum(Z[FROM] * products(FROM + 1), (FROM, 1, depth - 1))
    return 2 * LOSS * (C * products(1) + offsets)


@checked
def phi_by_recursion(branch: Literal["update", "base"] = "update", *, depth: Count) -> sp.Expr:
    """Return the same term by the recursions of the proof, for a given depth, expanded.

    The recursions are D_l = lambda_l (kept_l D_(l-1) + added_l U_(l-1)) and U_l = z_l + lambda_l (a_l + d_l) U_(l-1).

    Raises:
        ValueError: if the branch is unknown or the depth is not positive.

    >>> phi_by_recursion(depth=2) == phi_closed(depth=2).doit().expand()
    True
    """
    kept = _kept(branch)
    added = D if kept is A else A
    gap, size = sp.Integer(0), cast(sp.Expr, C)
    for layer in range(1, check_integer("depth", depth) + 1):
        gap = LIP[layer] * (kept[layer] * gap + added[layer] * size)
        size = Z[layer] + LIP[layer] * (A[layer] + D[layer]) * size
    return sp.expand(2 * LOSS * gap)


@checked
def table1_numbers(method: str | Method) -> sp.Expr:
    """Return the numbers that a method trains, X, as a sum over layers, from the registry of methods.

    >>> table1_numbers("c3la")
    k*r*Sum(n[l], (l, 1, L))
    """
    chosen = method if isinstance(method, Method) else get_method(method)
    count = cast(Any, Method.numbers_trained).__wrapped__  # letters pass through the arithmetic, not the checks
    per_layer = sp.factor(count(chosen, out_features=OUT[LAYER], in_features=M[LAYER], rank=R, links=K))
    outside, inside = per_layer.as_independent(LAYER, as_Add=False)
    return outside * sp.Sum(inside, (LAYER, 1, DEPTH))


@checked
def table1_root(method: str | Method) -> sp.Expr:
    """Return the square root of a method's row of table 1, sqrt(2 sigma^2 q ln2 X / N)."""
    return sp.sqrt(2 * SIGMA**2 * Q * sp.log(2) * table1_numbers(method) / N)


@checked
def at_layers(expr: sp.Expr, *, layers: Layers, **values: float) -> float:
    """Evaluate an expression in m_l, n_l and symbols at given layers.

    Args:
        expr: for example ``table1_root("lora")``.
        layers: shapes, or (out_features, in_features) pairs.
        **values: numbers by symbol name, for example ``r=16, q=16, sigma=0.5, N=3668``.

    >>> round(at_layers(table1_root("cla"), layers=[(768, 768)] * 24, r=16, q=16, sigma=0.5, N=3668), 4)
    21.1149
    """
    shapes = from_list(layers)
    sizes: dict[Any, sp.Integer] = {}
    for position, shape in enumerate(shapes, start=1):
        sizes[M[position]], sizes[OUT[position]] = sp.Integer(shape.in_features), sp.Integer(shape.out_features)
    expanded = expr.xreplace({DEPTH: sp.Integer(len(shapes))}).doit().xreplace(sizes)
    letters = {symbol: sp.sympify(values[symbol.name]) for symbol in expanded.free_symbols}
    return float(expanded.xreplace(letters))


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One bound in letters.

    Attributes:
        key: as ``Bound.name``, where there is a number to it.
        left_latex: what is bounded, in LaTeX.
        left_typst: the same in Typst.
        right: the bound.
        source: theorem and arXiv number.
    """

    key: str
    left_latex: str
    left_typst: str
    right: sp.Expr
    source: str

    def latex(self) -> str:
        r"""Return ``left \le right`` in LaTeX."""
        return rf"{self.left_latex} \le {latex(self.right)}"

    def typst(self) -> str:
        """Return ``left <= right`` in Typst math."""
        return f"{self.left_typst} <= {typst(self.right)}"


def statements() -> tuple[Statement, ...]:
    """Return every bound of ``theory.bounds`` in letters.

    >>> [statement.key for statement in statements()][:3]
    ['phi-update', 'phi-base', 'information']
    """
    return (*_theorem(), *_excess(), *_descriptions())


_GAP = (r"|\mathbb{E}\,\mathrm{gen}|", 'abs(EE thin "gen")')
_PAPER, _XU = "arXiv:2606.13767", "arXiv:1705.07809"


def _theorem() -> tuple[Statement, ...]:
    """Return theorem 1 as mended, the lemma under it and table 1."""
    table1 = PHI_BASE + sp.sqrt(2 * SIGMA**2 * sp.log(2) * BITS / N)
    return (
        Statement(
            key="phi-update",
            left_latex=r"G(W_0+\Delta W) - G(W_0)",
            left_typst="G(W_0 + Delta W) - G(W_0)",
            right=phi_closed("update"),
            source=f"theorem 1, mended, {_PAPER}",
        ),
        Statement(
            key="phi-base",
            left_latex=r"G(W_0+\Delta W) - G(\Delta W)",
            left_typst="G(W_0 + Delta W) - G(Delta W)",
            right=phi_closed("base"),
            source=f"theorem 1, mended, {_PAPER}",
        ),
        Statement(
            key="information",
            left_latex=_GAP[0],
            left_typst=_GAP[1],
            right=sp.sqrt(2 * SIGMA**2 * INFORMATION / N),
            source=f"theorem 1, {_XU}",
        ),
        Statement(
            key="table1",
            left_latex=r"G(W_0+\Delta W)",
            left_typst="G(W_0 + Delta W)",
            right=table1,
            source=f"table 1, {_PAPER}",
        ),
    )


def _excess() -> tuple[Statement, ...]:
    """Return the bounds on the gap itself: from the bits alone, and from the excess loss over W0."""
    root = sp.sqrt(2 * sp.log(2) * BITS / N)
    return (
        Statement(
            key="direct", left_latex=_GAP[0], left_typst=_GAP[1], right=SIGMA * root, source="lemma, arXiv:2402.16842"
        ),
        Statement(
            key="excess",
            left_latex=_GAP[0],
            left_typst=_GAP[1],
            right=sp.Min(SIGMA * root, CHANGE * root, 2 * CHANGE),
            source=f"excess loss over W0 in theorem 1, {_XU}",
        ),
    )


def _descriptions() -> tuple[Statement, ...]:
    """Return the lengths of two valid descriptions, and what a length certifies."""
    bits = "b"
    gauge = R * (M[LAYER] + OUT[LAYER] - R) * Q + sp.log(sp.binomial(M[LAYER], R)) / sp.log(2)
    return (
        Statement(
            key="support",
            left_latex=bits,
            left_typst=bits,
            right=Q * sp.Sum(SUPPORT[LAYER] * OUT[LAYER], (LAYER, 1, DEPTH)),
            source="S_l columns of layer l can change",
        ),
        Statement(
            key="gauge-fixed",
            left_latex=bits,
            left_typst=bits,
            right=sp.Sum(gauge, (LAYER, 1, DEPTH)),
            source="B A = (B M)(M^-1 A)",
        ),
        Statement(
            key="certificate",
            left_latex=r"\mathrm{kl}(\hat R \,\|\, R)",
            left_typst='"kl"(hat(R) || R)',
            right=(BITS * sp.log(2) + sp.log(1 / DELTA)) / N,
            source="Occam bound, Langford, JMLR 6 (2005)",
        ),
    )


def table1_rows() -> tuple[tuple[tuple[str, ...], bool, sp.Expr], ...]:
    """Return table 1 with the methods that share a row together: names, chained or not, the square root.

    >>> [(names, chained) for names, chained, _ in table1_rows()][1]
    (('LoRA', 'LoRA+'), False)
    """
    rows: dict[sp.Expr, list[Method]] = {}
    for method in METHODS.values():
        rows.setdefault(table1_root(method), []).append(method)
    return tuple((tuple(one.name for one in found), found[0].chained, root) for root, found in rows.items())


def table1_latex() -> str:
    r"""Return table 1 of arXiv:2606.13767 as a LaTeX ``tabular`` (booktabs), with the row of full fine-tuning."""
    lines = [r"\begin{tabular}{lcl}", r"\toprule", r"Method & Chained & Bound on $G(W_0+\Delta W)$ \\", r"\midrule"]
    for names, chained, root in table1_rows():
        mark = r"\checkmark" if chained else r"$\times$"
        lines.append(rf"{', '.join(names)} & {mark} & ${latex(PHI_BASE + root)}$ \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def table1_typst() -> str:
    """Return the same table as a Typst ``table``."""
    lines = ["#table(", "  columns: 3,", "  [Method], [Chained], [Bound on $G(W_0 + Delta W)$],"]
    for names, chained, root in table1_rows():
        lines.append(f"  [{', '.join(names)}], [{'yes' if chained else 'no'}], [${typst(PHI_BASE + root)}$],")
    return "\n".join([*lines, ")"]) + "\n"


@checked
def latex(expr: sp.Basic) -> str:
    r"""Return an expression as LaTeX, a product of roots under one root sign.

    >>> print(latex(sp.sqrt(2 * Q * sp.log(2) / N)))
    \sqrt{\frac{2 q \ln 2}{|N|}}
    """
    names = {N: "|N|", PHI_BASE: r"\Phi_{W_0}", LOSS: r"L_{\mathrm{loss}}"}
    return str(_LatexPrinter({"symbol_names": names}).doprint(expr))


@checked
def typst(expr: sp.Basic) -> str:
    """Return an expression as Typst math, in the same letters.

    >>> typst(sp.sqrt(2 * Q * sp.log(2) / N))
    'sqrt(frac(2 q ln 2, abs(N)))'
    """
    names = {N: "abs(N)", PHI_BASE: "Phi_(W_0)", LOSS: 'L_"loss"'}
    return print_typst(expr, symbol_names=names)


class _LatexPrinter(LatexPrinter):  # type: ignore[misc]  # SymPy has no types
    def _print_Mul(self, expr: sp.Mul) -> str:
        if has_root(expr):
            return rf"\sqrt{{{self._print(expr**2)}}}"
        return str(super()._print_Mul(expr))

    def _print_log(self, expr: sp.log, exp: Any = None) -> str:
        return rf"\ln {self._print(expr.args[0])}"

    def _print_Min(self, expr: sp.Min, exp: Any = None) -> str:
        return rf"\min\left({', '.join(sorted(map(self._print, expr.args), key=len))}\right)"


def has_root(expr: sp.Mul) -> bool:
    """Return whether a product holds a square root of something."""
    return any(isinstance(one, sp.Pow) and one.exp in (sp.S.Half, -sp.S.Half) for one in expr.args)


def _kept(branch: str) -> sp.IndexedBase:
    if branch not in ("update", "base"):
        raise ValueError(f"branch must be 'update' or 'base', got {branch!r}")
    return A if branch == "update" else D
