"""Directions: normalised filter by filter, principal directions against numpy's SVD, bad ones refused."""

import numpy as np
import pytest
import torch
from torch import nn

from analysis.geometry.directions import (
    check_direction,
    cosine,
    difference,
    norm,
    normalize,
    principal_directions,
    random_direction,
)
from analysis.geometry.spaces import parameter_space


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def test_filter_normalisation_gives_each_row_its_weights_norm(model):
    space = parameter_space(model, "full")
    direction = random_direction(space, generator=torch.Generator().manual_seed(1), normalization="filter")
    for name in ("0.weight", "2.weight"):
        torch.testing.assert_close(direction[name].norm(dim=1), space.center[name].norm(dim=1))
        assert not direction[name.replace("weight", "bias")].any()


def test_layer_normalisation_gives_each_tensor_its_weights_norm_and_keeps_its_shape(model):
    space = parameter_space(model, "full")
    raw = random_direction(space, generator=torch.Generator().manual_seed(1), normalization="none")
    direction = normalize(raw, space, "layer")
    torch.testing.assert_close(direction["0.weight"].norm(), space.center["0.weight"].norm())
    torch.testing.assert_close(
        direction["0.weight"] / direction["0.weight"][0, 0], raw["0.weight"] / raw["0.weight"][0, 0]
    )


def test_filter_normalised_plane_ignores_how_layers_are_scaled(model):
    """Scaling one layer's row by c scales the direction's row by c: the invariance that the normalisation is for."""
    before = random_direction(parameter_space(model, "full"), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        model[0].weight[1] *= 7.0
    after = random_direction(parameter_space(model, "full"), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(after["0.weight"][1], 7.0 * before["0.weight"][1])
    torch.testing.assert_close(after["0.weight"][0], before["0.weight"][0])


def test_zero_filters_take_the_mean_size_of_their_tensor_instead_of_staying_put(model):
    with torch.no_grad():
        model[0].weight[2] = 0.0
    space = parameter_space(model, "full")
    direction = random_direction(space, generator=torch.Generator().manual_seed(3))
    expected = space.center["0.weight"].square().sum(dim=1).mean().sqrt()
    torch.testing.assert_close(direction["0.weight"][2].norm(), expected)


def test_transposed_layers_are_normalised_by_output_feature():
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    model = nn.Sequential(Conv1D(5, 3))
    space = parameter_space(model, "merged")
    direction = random_direction(space, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(direction["0.weight"].norm(dim=0), space.center["0.weight"].norm(dim=0))


def test_one_seed_is_one_direction(model):
    space = parameter_space(model, "full")
    first, second = (random_direction(space, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_directions_of_the_wrong_shape_or_name_and_zero_ones_are_refused(model):
    space = parameter_space(model, "full")
    good = random_direction(space, generator=torch.Generator().manual_seed(0), normalization="none")
    with pytest.raises(ValueError, match=r"shape \(2, 2\) at '0.weight', expected \(4, 6\)"):
        check_direction({**good, "0.weight": torch.ones(2, 2)}, space)
    with pytest.raises(ValueError, match="differs in 'extra'"):
        check_direction({**good, "extra": torch.ones(1)}, space)
    with pytest.raises(ValueError, match="is zero"):
        check_direction({name: torch.zeros_like(value) for name, value in good.items()}, space)
    with pytest.raises(ValueError, match="not finite"):
        check_direction({**good, "0.bias": torch.full((4,), torch.nan)}, space)
    with pytest.raises(ValueError, match="unknown normalization 'row'"):
        normalize(good, space, "row")


def test_a_model_of_zeros_has_no_normalised_direction():
    model = nn.Linear(2, 2)
    nn.init.zeros_(model.weight)
    with pytest.raises(ValueError, match="is zero"):
        random_direction(parameter_space(model, "full"), generator=torch.Generator().manual_seed(0))


def test_principal_directions_equal_numpys_svd_of_the_path():
    rng = np.random.default_rng(0)
    path = rng.standard_normal((6, 12))
    states = [{"a": torch.tensor(row[:8]).reshape(2, 4), "b": torch.tensor(row[8:])} for row in path]
    plane = principal_directions(states)
    steps = path - path[-1]
    values, vectors = np.linalg.svd(steps - steps.mean(axis=0))[1:]
    for index, direction in enumerate(plane.directions):
        flat = np.concatenate([direction["a"].ravel(), direction["b"]])
        assert abs(flat @ vectors[index]) == pytest.approx(1.0, abs=1e-10)
        np.testing.assert_allclose(plane.path[:, index], steps @ flat, atol=1e-12)
    np.testing.assert_allclose(plane.explained, (values**2 / (values**2).sum())[:2], rtol=1e-10)
    assert cosine(*plane.directions) == pytest.approx(0.0, abs=1e-10)
    assert norm(plane.directions[0]) == pytest.approx(1.0, abs=1e-10)


def test_one_checkpoint_or_a_straight_path_spans_no_plane():
    with pytest.raises(ValueError, match="need at least 3 checkpoints, got 1"):
        principal_directions([{"a": torch.ones(3)}])
    with pytest.raises(ValueError, match="fewer than 2 directions"):
        principal_directions([{"a": t * torch.ones(3)} for t in (0.0, 1.0, 3.0)])


def test_states_of_other_ranks_have_no_difference():
    with pytest.raises(ValueError, match="shape"):
        difference({"a": torch.ones(2)}, {"a": torch.ones(3)})
    with pytest.raises(ValueError, match="different parameters"):
        difference({"a": torch.ones(2)}, {"b": torch.ones(2)})
