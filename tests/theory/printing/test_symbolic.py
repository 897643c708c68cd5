import numpy as np
import pytest
import sympy as sp

from theory import bounds
from theory.layers import for_model
from theory.methods import METHODS
from theory.networks import Network, correction
from theory.printing import symbolic
from theory.printing.typst import typst as typst_of


@pytest.mark.parametrize("branch", ["update", "base"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_closed_form_of_theorem1_follows_from_its_recursions(branch, depth):
    closed = symbolic.phi_closed(branch, depth=depth).doit()
    assert sp.expand(closed) == symbolic.phi_by_recursion(branch, depth=depth)


def test_symbols_and_numbers_agree_on_theorem1():
    rng = np.random.default_rng(0)
    base, update, lipschitz, offsets = rng.uniform(0.1, 3, size=(4, 3))
    phi = correction(
        Network(base_norms=base, lipschitz=lipschitz, offsets=offsets, radius=1.7, loss_lipschitz=0.6),
        update_norms=update,
    )
    values = {symbolic.C: 1.7, symbolic.LOSS: 0.6}
    for layer in range(3):
        values |= {symbolic.A[layer + 1]: base[layer], symbolic.D[layer + 1]: update[layer]}
        values |= {symbolic.LIP[layer + 1]: lipschitz[layer], symbolic.Z[layer + 1]: offsets[layer]}
    for branch, number in (("update", phi.update), ("base", phi.base)):
        assert float(symbolic.phi_closed(branch, depth=3).doit().subs(values)) == pytest.approx(number, rel=1e-12)


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("model", ["llama3-8b", "gpt2-small"])
def test_symbols_and_numbers_agree_on_every_row_of_table1(method, model):
    adapted = for_model(model)
    number = bounds.table1(adapted, method=method, num_examples=999, rank=8, bits=32, sigma=0.7, links=5).value
    letters = {"r": 8, "q": 32, "sigma": 0.7, "k": 5, "N": 999}
    assert symbolic.at_layers(symbolic.table1_root(method), layers=adapted, **letters) == pytest.approx(number)


def test_rows_group_the_methods_as_the_paper_does():
    grouped = {names: chained for names, chained, _ in symbolic.table1_rows()}
    assert grouped == {
        ("FFT",): False,
        ("LoRA", "LoRA+"): False,
        ("Asym-LoRA", "cLA", "r-cLA", "PaCA"): False,
        ("CoLA",): True,
        ("RAC-LoRA", "c3LA", "r-c3LA"): True,
    }


# Table 1 of arXiv:2606.13767 as printed, in SymPy: the term under the root.
M, OUT, N, ROW = symbolic.M, symbolic.OUT, symbolic.N, symbolic.LAYER
INSIDE = 2 * symbolic.R * symbolic.Q * symbolic.SIGMA**2 * sp.log(2) / N
RANGE = (ROW, 1, symbolic.DEPTH)
BOTH, ROWS = sp.Sum(M[ROW] + OUT[ROW], RANGE), sp.Sum(OUT[ROW], RANGE)
PRINTED = {
    "lora": INSIDE * BOTH,
    "lora+": INSIDE * BOTH,
    "asym": INSIDE * ROWS,
    "cola": INSIDE * symbolic.K * BOTH,
    "rac": INSIDE * symbolic.K * ROWS,
    "cla": INSIDE * ROWS,
    "paca": INSIDE * ROWS,
    "c3la": INSIDE * symbolic.K * ROWS,
}


@pytest.mark.parametrize("method", list(PRINTED))
def test_square_roots_are_those_of_the_papers_table(method):
    assert sp.simplify(symbolic.table1_root(method) ** 2 - PRINTED[method]) == 0


def test_latex_table_has_every_method_once_and_the_papers_terms():
    table = symbolic.table1_latex()
    cells = [line.split(" & ")[0] for line in table.splitlines() if "Phi_{W_0}" in line]
    assert sorted(", ".join(cells).split(", ")) == sorted(method.name for method in METHODS.values())
    assert r"\Phi_{W_0} + \sqrt{\frac{2 q r \sigma^{2} \ln 2 \sum_{l=1}^{L} {n}_{l}}{|N|}}" in table
    assert table.count("{") == table.count("}")
    assert table.count(r"\checkmark") == 2


@pytest.mark.parametrize("statement", symbolic.statements(), ids=lambda statement: statement.key)
def test_latex_and_typst_of_every_statement_are_well_formed(statement, tmp_path):
    typst = pytest.importorskip("typst")
    source = tmp_path / "statement.typ"
    source.write_text(f"${statement.typst()}$\n")
    assert typst.compile(str(source)).startswith(b"%PDF")
    assert statement.latex().count("{") == statement.latex().count("}")
    assert statement.latex().count(r"\left(") == statement.latex().count(r"\right)")


def test_typst_table_compiles(tmp_path):
    typst = pytest.importorskip("typst")
    source = tmp_path / "table.typ"
    source.write_text(symbolic.table1_typst())
    assert typst.compile(str(source)).startswith(b"%PDF")


def test_statements_evaluate_to_the_bounds_of_the_same_name():
    values = {"sigma": 0.5, "b": 5000.0, "N": 800.0, "D": 0.2, "I": 12.0}
    numbers = {
        "direct": bounds.direct(5000, num_examples=800).value,
        "excess": bounds.excess(5000, loss_change=0.2, num_examples=800).value,
        "information": bounds.information(12.0, num_examples=800).value,
    }
    for statement in symbolic.statements():
        if statement.key in numbers:
            right = statement.right.subs({symbol: values[symbol.name] for symbol in statement.right.free_symbols})
            assert float(right) == pytest.approx(numbers[statement.key], rel=1e-12)


def test_gauge_fixed_statement_evaluates_to_the_counted_bits():
    right = next(one.right for one in symbolic.statements() if one.key == "gauge-fixed")
    letters = symbolic.at_layers(right, layers=[(32, 48)], r=4, q=16)
    plan = bounds.plan([(32, 48)], method="lora", rank=4)
    assert letters == pytest.approx(bounds.description_bits(plan[0])["gauge-fixed"])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (sp.Symbol("a") - sp.Symbol("b"), "a - b"),
        (sp.Rational(1, 2) * sp.Symbol("x"), "frac(x, 2)"),
        (-sp.Symbol("x"), "-x"),
        ((sp.Symbol("a") + 1) ** 2, "(a + 1)^(2)"),
        (sp.Symbol("Phi_W0"), "Phi_(W 0)"),
        (1 / sp.Symbol("n"), "frac(1, n)"),
        ((sp.Symbol("a") + 2) / sp.Symbol("n"), "frac(a + 2, n)"),
        (-(sp.Symbol("a") + 2) / sp.Symbol("n"), "frac(-a - 2, n)"),
    ],
)
def test_typst_of_small_expressions(expression, expected):
    assert typst_of(expression) == expected


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"branch must be one of update, base; got 'both'"):
        symbolic.phi_closed("both")
    with pytest.raises(ValueError, match=r"depth must be .* got 0"):
        symbolic.phi_by_recursion(depth=0)
    with pytest.raises(TypeError, match=r"expression must be made of"):
        typst_of(sp.Integral(sp.Symbol("x"), sp.Symbol("x")))
