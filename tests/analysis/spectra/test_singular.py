"""Spectra: planted intruders, invariances, and the operator against the full SVD."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.spectra.intruders import Basis, BasisCache, cosines, count_intruders, dense_cosines
from analysis.spectra.singular import (
    effective_rank,
    intruder_counts,
    intruder_dimensions,
    intruder_total,
    product_singular_values,
    singular_values,
    spectrum_table,
    stable_rank,
    subspace_similarity,
)
from analysis.spectra.tails import heavy_tail
from analysis.spectra.weights import LayerUpdate


def orthogonal(size, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q


def base_weight(rows, columns, *, decay=0.0, seed=0):
    """A weight with known singular vectors and well separated singular values."""
    size = min(rows, columns)
    values = (1.0 + torch.arange(size, dtype=torch.float64)) ** -decay if decay else torch.linspace(2, 1, size).double()
    return (orthogonal(rows, seed)[:, :size] * values) @ orthogonal(columns, seed + 1)[:, :size].T


def planted(rows, columns, *, angles, strength=50.0, seed=7):
    """W0 and an update whose leading vectors have chosen best cosines with W0's left vectors."""
    base = base_weight(rows, columns, seed=seed)
    u, _, v = torch.linalg.svd(base, full_matrices=False)
    left = torch.stack(
        [math.cos(angle) * u[:, 2 * j] + math.sin(angle) * u[:, 2 * j + 1] for j, angle in enumerate(angles)], dim=1
    )
    scale = strength * torch.arange(len(angles), 0, -1, dtype=torch.float64)
    return base, left * scale, v[: len(angles)]


def test_planted_intruders_are_found_exactly():
    """Directions at 45 degrees between two of W0's vectors have best cosine 0.7071; aligned ones have 1."""
    base, left, right = planted(40, 30, angles=[math.pi / 4, 0.0, math.pi / 4, 0.0])
    found = cosines(Basis.of(base), left, right, count=4)
    # strength 50 against W0's norm 2: perturbation of the planted directions below (2 / 50)^1
    np.testing.assert_allclose(found.cosines, [math.sqrt(0.5), 1, math.sqrt(0.5), 1], atol=0.03)
    assert [count_intruders(found, epsilon=epsilon) for epsilon in (0.5, 0.8, 1.0)] == [0, 2, 4]
    assert found.match[1] == 2


def test_an_update_outside_every_base_vector_is_an_intruder_with_cosine_near_zero():
    """Tall W0: an update along a left direction that W0 does not span at all."""
    base = base_weight(50, 20)
    outside = torch.linalg.svd(base, full_matrices=True).U[:, 30:31]
    right = torch.linalg.svd(base).Vh[3:4]
    found = cosines(Basis.of(base), 100 * outside, right, count=3)
    assert found.cosines[0] < 0.03
    assert count_intruders(found) == 1


def test_no_update_has_no_intruders():
    base = base_weight(30, 40)
    found = cosines(Basis.of(base), torch.zeros(30, 2), torch.zeros(2, 40), count=None)
    np.testing.assert_allclose(found.cosines, 1.0, atol=1e-6)
    assert count_intruders(found, epsilon=0.99) == 0


@pytest.mark.parametrize("shape", [(48, 48), (60, 25), (25, 60), (300, 300), (500, 260), (260, 400)])
@pytest.mark.parametrize("decay", [0.0, 0.8])
@pytest.mark.parametrize("side", ["left", "right"])
def test_operator_equals_the_full_svd(shape, decay, side):
    rows, columns = shape
    base = base_weight(rows, columns, decay=decay)
    generator = torch.Generator().manual_seed(3)
    left = torch.randn(rows, 4, generator=generator, dtype=torch.float64) * 0.3
    right = torch.randn(4, columns, generator=generator, dtype=torch.float64) * 0.3
    basis = Basis.of(base)
    fast = cosines(basis, left, right, count=10, side=side)
    slow = dense_cosines(basis, base + left @ right, count=10, side=side)
    assert fast.route == ("operator" if min(shape) > 128 else "small svd")
    np.testing.assert_allclose(fast.values, slow.values, rtol=1e-8)
    # vectors are determined up to rounding over the gap to the next singular value: 1e-16 / 1e-4 and ARPACK's 1e-10
    np.testing.assert_allclose(fast.cosines, slow.cosines, atol=1e-6)
    for epsilon in (0.2, 0.5, 0.9):
        assert count_intruders(fast, epsilon=epsilon) == count_intruders(slow, epsilon=epsilon)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_cosines_do_not_depend_on_signs_or_rotations_of_the_space(seed):
    """W -> Q W P with orthogonal Q, P rotates both bases alike; (B, A) -> (B G, G^-1 A) is the same update."""
    base = base_weight(12, 9, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((12, 2), (2, 9)))
    q, p = orthogonal(12, seed + 2), orthogonal(9, seed + 3)
    gauge = torch.tensor([[2.0, 1.0], [0.5, -1.0]], dtype=torch.float64)
    one = cosines(Basis.of(base), left, right, count=5)
    for turned, down, up in (
        (q @ base @ p, q @ left, right @ p),
        (base, left @ gauge, torch.linalg.inv(gauge) @ right),
        (-base, -left, right),
    ):
        other = cosines(Basis.of(turned), down, up, count=5)
        firm = one.gap > 1e-3
        np.testing.assert_allclose(other.cosines[firm], one.cosines[firm], atol=1e-8)
        np.testing.assert_allclose(other.values, one.values, atol=1e-10)


def test_right_vectors_are_the_left_ones_of_the_transpose():
    base, left, right = planted(30, 20, angles=[0.7])
    one = cosines(Basis.of(base), left, right, count=5, side="right")
    other = cosines(Basis.of(base.T.contiguous()), right.T, left.T, count=5, side="left")
    np.testing.assert_allclose(one.cosines, other.cosines, atol=1e-10)


def test_gap_says_how_far_the_next_singular_value_is():
    found = cosines(Basis.of(torch.diag(torch.tensor([4.0, 2.0, 1.0]))), torch.zeros(3, 1), torch.zeros(1, 3), count=3)
    np.testing.assert_allclose(found.gap, [0.5, 0.5, 1.0])


def test_both_conventions_count_what_they_say():
    base, left, right = planted(40, 30, angles=[math.pi / 4] * 3)
    updates = [LayerUpdate(name=name, base=base, left=left, right=right) for name in ("a", "b")]
    authors = intruder_dimensions(updates, convention="authors")
    paper = intruder_dimensions(updates, convention="paper")
    assert len(authors) == 2 * 10
    assert len(paper) == 2 * 30
    assert intruder_total(authors, epsilon=0.75) == intruder_total(authors[authors["index"] < 10], epsilon=0.75) >= 6
    counts = intruder_counts(paper, np.linspace(0.1, 1.0, 10))
    assert counts["intruders"].is_monotonic_increasing
    with pytest.raises(ValueError, match="unknown convention"):
        intruder_dimensions(updates, convention="both")
    with pytest.raises(ValueError, match="epsilons must lie"):
        intruder_counts(paper, [0.0])


def test_dense_updates_take_the_full_svd_and_agree_with_the_factored_ones():
    base, left, right = planted(40, 30, angles=[0.6, 0.3])
    factored = intruder_dimensions([LayerUpdate(name="a", base=base, left=left, right=right)])
    dense = intruder_dimensions([LayerUpdate(name="a", base=base, delta=left @ right)])
    assert set(dense["route"]) == {"full svd"}
    np.testing.assert_allclose(dense["cosine"], factored["cosine"], atol=1e-6)


def test_bases_are_computed_once_and_come_back_from_disk(tmp_path, monkeypatch):
    base = base_weight(20, 20).float()
    calls = []
    original = Basis.of
    monkeypatch.setattr(Basis, "of", classmethod(lambda cls, *a, **k: calls.append(1) or original(*a, **k)))
    first = BasisCache(tmp_path)
    assert first.get(base) is first.get(base.clone())
    again = BasisCache(tmp_path).get(base)
    assert len(calls) == 1
    torch.testing.assert_close(again.values, first.get(base).values)
    (file,) = tmp_path.glob("svd-*.safetensors")
    file.write_bytes(b"cut")
    with pytest.raises(ValueError, match="damaged"):
        BasisCache(tmp_path).get(base)


def test_spectrum_of_a_product_equals_its_svd_without_forming_it():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((50, 5), (5, 30)))
    values = product_singular_values(left, right)
    np.testing.assert_allclose(values, torch.linalg.svdvals(left @ right).numpy()[:5], rtol=1e-12)
    with pytest.raises(ValueError, match="the rank of the product, at most 5, got 6"):
        product_singular_values(left, right, count=6)
    with pytest.raises(ValueError, match="have no product"):
        product_singular_values(left, left)


def test_ranks_of_known_spectra():
    assert effective_rank([1.0] * 7) == pytest.approx(7.0)
    assert stable_rank([1.0] * 7) == pytest.approx(7.0)
    assert effective_rank([5.0, 0.0]) == pytest.approx(1.0)
    # shares 2/3 and 1/3: exp(ln 3 - 2/3 ln 2) = 3 / 2^(2/3)
    assert effective_rank([2.0, 1.0]) == pytest.approx(3 / 2 ** (2 / 3))
    assert math.isnan(effective_rank([0.0, 0.0]))
    assert math.isnan(stable_rank([0.0]))


def test_subspace_similarity_of_known_and_of_random_subspaces():
    eye = torch.eye(8)
    sizes = torch.tensor([[4.0], [3.0], [2.0], [1.0]])
    np.testing.assert_allclose(subspace_similarity(sizes * eye[:4], sizes**2 * eye[:4]), 1.0)
    disjoint = subspace_similarity(eye[:3], eye[5:])
    np.testing.assert_allclose(disjoint, 0.0, atol=1e-15)
    generator = torch.Generator().manual_seed(0)
    draws = [
        subspace_similarity(torch.randn(4, 40, generator=generator), torch.randn(4, 40, generator=generator))
        for _ in range(300)
    ]
    rows, columns = np.indices((4, 4)) + 1
    # mean max(i, j) / n; relative standard error of 300 draws below 5 % for the smallest entry
    np.testing.assert_allclose(np.mean(draws, axis=0), np.maximum(rows, columns) / 40, rtol=0.2)
    with pytest.raises(ValueError, match="one width"):
        subspace_similarity(eye, torch.ones(2, 3))


def test_tail_exponent_of_a_pareto_sample_is_recovered():
    """Eigenvalues of density lambda^-alpha; the maximum-likelihood error is (alpha - 1) / sqrt(n)."""
    rng = np.random.default_rng(0)
    for alpha in (2.0, 3.5):
        eigenvalues = (1 - rng.random(4000)) ** (-1 / (alpha - 1))
        found = heavy_tail(np.sqrt(eigenvalues))
        assert found.alpha == pytest.approx(alpha, abs=5 * (alpha - 1) / math.sqrt(found.tail))
        assert found.distance < 0.05


def test_tail_exponent_is_undefined_for_few_or_equal_eigenvalues():
    few = heavy_tail(np.ones(8))
    assert math.isnan(few.alpha)
    assert few.reason == "8 nonzero eigenvalues, a tail exponent needs 50"
    assert "equal" in heavy_tail(np.ones(60)).reason


def test_tail_exponent_agrees_with_the_powerlaw_package():
    powerlaw = pytest.importorskip("powerlaw")
    values = np.random.default_rng(1).pareto(1.5, size=300) + 1
    ours = heavy_tail(np.sqrt(values))
    theirs = powerlaw.Fit(values, xmin=ours.start * (1 - 1e-12), verbose=False)
    assert ours.alpha == pytest.approx(theirs.alpha, rel=1e-6)


def test_table_has_a_row_per_layer_with_consistent_norms():
    base, left, right = planted(60, 55, angles=[0.5])
    table = spectrum_table([LayerUpdate(name="a", base=base, left=left, right=right)], cache=BasisCache())
    row = table.iloc[0]
    assert row["norm_update"] == pytest.approx(50.0)
    assert abs(row["norm_tuned"] - row["norm_update"]) <= row["norm_base"]
    assert row["effective_rank_update"] == pytest.approx(1.0)
    assert np.isfinite(row["tail_exponent_tuned"])


def test_bad_matrices_are_refused():
    basis = Basis.of(torch.eye(4))
    with pytest.raises(ValueError, match="do not fit a base"):
        cosines(basis, torch.ones(3, 1), torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"between 1 and min\(m, n\) = 4, got 5"):
        cosines(basis, torch.ones(4, 1), torch.ones(1, 4), count=5)
    with pytest.raises(ValueError, match="side must be"):
        cosines(basis, torch.ones(4, 1), torch.ones(1, 4), side="both")
    with pytest.raises(ValueError, match="NaN or infinity"):
        Basis.of(torch.full((2, 2), torch.nan))
    with pytest.raises(TypeError, match="int8, not floating point"):
        Basis.of(torch.ones(2, 2, dtype=torch.int8))
    with pytest.raises(ValueError, match="between 1 and"):
        singular_values(torch.eye(3), count=4)
    with pytest.raises(ValueError, match="tuned weight has shape"):
        dense_cosines(basis, torch.eye(3))
    with pytest.raises(ValueError, match="epsilon must lie"):
        count_intruders(cosines(basis, torch.ones(4, 1), torch.ones(1, 4), count=2), epsilon=1.5)


@pytest.mark.parametrize("size", [20, 200])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_no_update_of_an_identity_or_a_rotation_has_no_intruders(size, turned, side):
    base = orthogonal(size, 1) if turned else torch.eye(size, dtype=torch.float64)
    zero = torch.zeros(size, 2, dtype=torch.float64)
    updates = [
        LayerUpdate(name="factored", base=base, left=zero, right=zero.T),
        LayerUpdate(name="dense", base=base, delta=torch.zeros_like(base)),
    ]
    vectors = intruder_dimensions(updates, side=side)
    counts = intruder_counts(vectors, [0.5, 0.99])
    assert counts["intruders"].tolist() == [0, 0]
    assert counts["doubtful"].tolist() == [0, 0]


def test_a_planted_intruder_of_an_identity_is_the_only_one():
    """Every direction is a singular vector of an identity, so nothing can be new to it."""
    base = torch.eye(40, dtype=torch.float64)
    left = torch.full((40, 1), 40**-0.5, dtype=torch.float64)
    found = intruder_dimensions([LayerUpdate(name="a", base=base, left=5 * left, right=left.T)])
    np.testing.assert_allclose(found["cosine"], 1.0)
    half = torch.cat([torch.ones(20), torch.full((20,), 0.5)]).double()  # two clusters: the direction lies between them
    found = intruder_dimensions([LayerUpdate(name="a", base=torch.diag(half), left=50 * left, right=left.T)])
    assert found["cosine"][0] == pytest.approx(math.sqrt(0.5), abs=0.01)


@pytest.mark.parametrize("size", [12, 200])
def test_a_zero_base_has_an_answer(size):
    """W0 = 0 has no direction of its own: what an update adds is new, what stays zero is not."""
    base, left = torch.zeros(size, size), torch.linalg.qr(torch.randn(size, 2)).Q
    zero = torch.zeros_like(left)
    vectors = intruder_dimensions(
        [
            LayerUpdate(name="both zero", base=base, left=zero, right=zero.T),
            LayerUpdate(name="b", base=base, left=left, right=left.T),
        ]
    )
    counts = {name: (group["cosine"] < 0.5).sum() for name, group in vectors.groupby("layer")}
    assert counts == {"both zero": 0, "b": 2}
    table = spectrum_table([LayerUpdate(name="b", base=base, left=left, right=left.T)]).iloc[0]
    assert table["frobenius_ratio"] == math.inf
    assert math.isnan(table["effective_rank_base"])


def test_a_rank_deficient_base_without_update_has_no_intruders_by_all_vectors():
    base = base_weight(30, 30)
    base[:, 20:] = 0
    update = LayerUpdate(name="a", base=base, delta=torch.zeros_like(base))
    assert intruder_total(intruder_dimensions([update], convention="paper"), epsilon=0.99) == 0
