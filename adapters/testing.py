"""Checks that come with the package: a test class inherits what every method must do to a model.

    class TestDora(MethodChecks):
        def method(self):
            return DORA

pytest collects the ``test_`` methods of the subclass. The model is a small perceptron in float64, so that what must be
equal is equal to rounding; ``model`` and ``batch`` may be stated too.
"""

from __future__ import annotations

import copy
import math
import tempfile
from abc import abstractmethod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.describe import delta_weights, describe, factors
from adapters.export import export_to_lora, load_adapter
from adapters.prepare import Prepared, prepare
from theory.bounds import update_bounds
from theory.methods import Method

__all__ = ["MethodChecks"]

_TARGETS = ["0", "2"]


class MethodChecks:
    """What holds for every method on every model."""

    rank = 2
    links = 1

    @abstractmethod
    def method(self) -> Method:
        """Return the method."""

    def model(self) -> nn.Module:
        """Return a new base model, the same each time: two linear layers, called "0" and "2"."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)).double()

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return inputs and targets for that model."""
        generator = torch.Generator().manual_seed(1)
        return (torch.randn(n, k, generator=generator, dtype=torch.float64) for n, k in ((7, 6), (7, 5)))  # type: ignore[return-value]

    def prepared(self) -> Prepared:
        """Return the base model made ready."""
        chosen = self.method()
        return prepare(
            self.model(), chosen.key, rank=self.rank, alpha=4.0, links=self.links, target_modules=_TARGETS,
            learning_rate=1e-2, seed=3,
        )  # fmt: skip

    def trained(self, *, steps: int = 5) -> nn.Module:
        """Return a model after a few steps."""
        ready = self.prepared()
        optimizer = ready.create_optimizer()
        inputs, targets = self.batch()
        for _ in range(steps):
            optimizer.zero_grad()
            F.mse_loss(ready.model(inputs), targets).backward()
            optimizer.step()
        return ready.model.eval()

    def test_it_starts_at_the_base_function(self) -> None:
        inputs, _ = self.batch()
        torch.testing.assert_close(self.prepared().model(inputs), self.model()(inputs), rtol=1e-12, atol=1e-12)

    def test_as_many_numbers_train_as_it_says(self) -> None:
        model, base = self.prepared().model, self.model()
        shapes = [_linear(base, name).weight.shape for name in _TARGETS]
        counted = sum(
            self.method().numbers_trained(out_features=rows, in_features=columns, rank=self.rank)
            for rows, columns in shapes
        )
        biases = sum(_linear(base, name).bias.numel() for name in _TARGETS) if not self._adapts else 0
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == counted + biases

    def test_the_same_seed_gives_the_same_start(self) -> None:
        one, other = self.prepared().model.state_dict(), self.prepared().model.state_dict()
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_it_learns_and_moves_what_it_trains_alone(self) -> None:
        before, model = self.prepared().model, self.trained()
        inputs, targets = self.batch()
        assert F.mse_loss(model(inputs), targets) < F.mse_loss(before(inputs), targets)
        start = dict(before.named_parameters())
        moved = {name for name, p in model.named_parameters() if not torch.equal(p, start[name])}
        assert moved
        assert moved <= {name for name, p in model.named_parameters() if p.requires_grad}

    def test_its_dense_update_is_what_the_model_computes(self) -> None:
        model, base = self.trained(), self.model()
        inputs, _ = self.batch()
        merged = copy.deepcopy(base)
        with torch.no_grad():
            for name, delta in delta_weights(model, base.state_dict()).items():
                _linear(merged, name).weight += delta
                if not self._adapts:
                    _linear(merged, name).bias.copy_(_linear(model, name).bias)
        torch.testing.assert_close(model(inputs), merged(inputs), rtol=1e-9, atol=1e-11)

    def test_its_records_say_what_was_trained(self) -> None:
        model, base = self.trained(), self.model()
        deltas = delta_weights(model, base.state_dict())
        records = [record for record in describe(model, base.state_dict()) if record["kind"] != "head"]
        assert [record["name"] for record in records] == _TARGETS
        for record in records:
            assert record["kind"] == self.method().family.name
            delta = deltas[record["name"]]
            counted = self.method().numbers_trained(
                out_features=record["out_features"], in_features=record["in_features"], rank=self.rank
            )
            assert record["numbers_trained"] == counted
            assert (record["out_features"], record["in_features"]) == tuple(delta.shape)
            largest = torch.linalg.matrix_norm(delta, 2).item()
            assert math.isclose(record["norm_update"], largest, rel_tol=1e-6)
            if record["support"] is not None:
                assert set(delta.abs().sum(0).nonzero().flatten().tolist()) <= set(record["support"])

    def test_a_description_by_rank_is_stated_for_updates_of_that_rank_alone(self) -> None:
        model, base = self.trained(), self.model()
        stated = {one.name for one in self.method().family.descriptions}
        for name, delta in delta_weights(model, base.state_dict()).items():
            if "gauge-fixed" in stated:
                assert torch.linalg.matrix_rank(delta) <= self.rank * self.links, name

    def test_its_bounds_are_evaluated_from_its_records(self) -> None:
        found = update_bounds(describe(self.trained(), self.model().state_dict()), num_examples=1000)
        names = [bound.name for bound in found]
        assert {"table1-root", "direct", "cheapest"} <= set(names)
        values = {bound.name: bound.value for bound in found}
        assert values["cheapest"] <= values["direct"] < math.inf

    def test_an_exported_adapter_is_the_same_function_for_plain_lora(self) -> None:
        if not self._adapts:
            return
        model = self.trained()
        inputs, _ = self.batch()
        with tempfile.TemporaryDirectory() as folder:
            export_to_lora(model, folder)
            plain = load_adapter(self.model(), folder).eval()
        torch.testing.assert_close(plain(inputs), model(inputs), rtol=1e-9, atol=1e-11)

    def test_a_saved_adapter_is_read_back_and_described_alike(self) -> None:
        if not self._adapts:
            return
        model = self.trained()
        inputs, _ = self.batch()
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)  # type: ignore[operator]
            again = load_adapter(self.model(), folder).eval()
        torch.testing.assert_close(again(inputs), model(inputs), rtol=1e-12, atol=1e-12)
        for one, other in zip(factors(model), factors(again), strict=True):
            torch.testing.assert_close(one.left @ one.right, other.left @ other.right, rtol=1e-12, atol=1e-12)

    @property
    def _adapts(self) -> bool:
        return self.method().trains != "weight"


def _linear(model: nn.Module, name: str) -> nn.Linear:
    return cast(nn.Linear, model.get_submodule(name))
