"""Checks that come with the package: a test class inherits what every method must do to a model.

    class TestDora(MethodChecks):
        def method(self):
            return DORA

pytest collects the ``test_`` methods of the subclass. The model is a small perceptron in float64, so that what must be
equal is equal to rounding; ``model`` and ``batch`` may be stated too. `ModelChecks` asks less of a method and more of a
model: a class states an architecture, a batch and a method, and inherits five checks in every way a model is run.
"""

from __future__ import annotations

import copy
import math
import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.chain import merge_and_continue
from adapters.describe import delta_weights, describe, factors
from adapters.export import export_to_lora, load_adapter
from adapters.prepare import Prepared, prepare
from adapters.reference import dense_model, dtype_of, gradient_of, saved_modules, slopes, trained
from theory.bounds import update_bounds
from theory.methods import Method

__all__ = ["MethodChecks", "ModelChecks"]

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


class ModelChecks:
    """What holds for a method on a model of any architecture.

    All but the check in bf16 is done in float64, at random parameters and, where the method chains, in the second link.
    The reference is a dense model of the same function, in which each W is W0 + dW. A method with nothing to adapt
    (full fine-tuning) has nothing to merge or to export; those checks end early.
    """

    rank = 2
    seed = 5

    @abstractmethod
    def method(self) -> Method:
        """Return the method."""

    @abstractmethod
    def model(self) -> nn.Module:
        """Return a new base model, the same each time, without dropout."""

    @abstractmethod
    def batch(self) -> dict[str, Tensor]:
        """Return the keyword arguments of one forward pass, targets among them."""

    def arguments(self) -> dict[str, Any]:
        """Return further arguments of `adapters.prepare`, such as ``target_modules``."""
        return {}

    def loss(self, model: nn.Module) -> Tensor:
        """Return the loss of one forward pass."""
        return model(**self._typed(model)).loss

    def output(self, model: nn.Module) -> Tensor:
        """Return what a forward pass gives, a tensor."""
        return model(**self._typed(model)).logits

    def prepared(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """Return the model made ready, at random parameters; a chain in its second link."""
        chosen = self.method()
        links = 2 if chosen.chained else 1
        model = prepare(
            self.model().to(dtype), chosen.key, rank=self.rank, alpha=4.0, links=links, seed=self.seed,
            **self.arguments(),
        ).model.eval()  # fmt: skip
        generator = torch.Generator().manual_seed(self.seed)
        for link in range(links):
            if link:
                merge_and_continue(model)
            with torch.no_grad():
                for parameter in trained(model).values():
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        return model

    def dense(self, model: nn.Module) -> nn.Module:
        """Return a dense float64 model of the same function as ``model``."""
        return dense_model(model, self.model())

    def test_it_trains_exactly_what_it_says(self) -> None:
        model = self.prepared().train()
        parameters = trained(model)
        expected = sum(p.numel() for p in self.model().parameters())
        if self._adapts:
            matrices = [layer.left.shape[:1] + layer.right.shape[1:] for layer in factors(model)]
            assert matrices, "no layer is adapted"
            expected = sum(p.numel() for _, module in saved_modules(model) for p in module.parameters()) + sum(
                self.method().numbers_trained(out_features=rows, in_features=columns, rank=self.rank)
                for rows, columns in matrices
            )
        assert sum(p.numel() for p in parameters.values()) == expected
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.loss(model).backward()
        torch.optim.SGD(parameters.values(), lr=0.1).step()
        moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        assert moved <= set(parameters)
        still = {name for name in parameters if name not in moved and ".modules_to_save." not in name}
        assert not still or not self._adapts, f"training does not reach {', '.join(sorted(still))}"

    def test_its_gradients_are_those_of_a_dense_float64_model(self) -> None:
        model = self.prepared()
        want = self._slopes(model)
        able = getattr(self.model(), "supports_gradient_checkpointing", False)
        for how in ("eval", "train", *(("reentrant", "not reentrant") if able else ())):
            with _run(model, how):
                model.zero_grad()
                self.loss(model).backward()
            parameters = trained(model)
            for name, direction, slope in want:
                gradient = gradient_of(parameters[name])
                # float64, but transformers rounds logits to fp32 for its losses.
                atol = 1e-12 + 1e-7 * (gradient.norm() * direction.norm()).item()
                found, where = (gradient * direction).sum().item(), f"{name} under {how}"
                assert math.isclose(found, slope, rel_tol=1e-6, abs_tol=atol), f"{where}: {found} is not {slope}"

    def test_in_bf16_its_gradients_are_near_those_of_a_dense_float64_model(self) -> None:
        model = self.prepared(torch.bfloat16)
        want = self._slopes(model)
        self.loss(model.train()).backward()
        parameters = trained(model)
        off = [((gradient_of(parameters[name]) * along).sum().item() - slope) ** 2 for name, along, slope in want]
        size = sum(slope**2 for *_, slope in want)
        # bf16 keeps 8 bits, a relative error of 0.4 % an operation; a tenth of the whole is a few dozen of them.
        assert sum(off) < 0.01 * size, f"off by {math.sqrt(sum(off) / size):.1%}"

    def test_it_computes_what_a_dense_float64_model_does(self) -> None:
        model = self.prepared()
        dense = self.dense(model)
        want = self.output(dense)
        for how in ("eval", "train"):
            with _run(model, how), _run(dense, how):
                want = self.output(dense).detach()
                torch.testing.assert_close(self.output(model), want, rtol=1e-9, atol=1e-11)
                with torch.no_grad():
                    torch.testing.assert_close(self.output(model), want, rtol=1e-9, atol=1e-11)

    def test_saved_and_read_back_it_is_the_same(self) -> None:
        model = self.prepared()
        want = self.output(model)
        with tempfile.TemporaryDirectory() as folder:
            if self._adapts:
                model.save_pretrained(folder)  # type: ignore[operator]
                again: nn.Module = PeftModel.from_pretrained(self.model().double(), folder).eval()
            else:
                again = self.model().double()
                again.load_state_dict(model.state_dict())
        torch.testing.assert_close(self.output(again), want, rtol=1e-12, atol=1e-12)

    def test_merged_it_is_the_same_and_unmerged_what_it_was(self) -> None:
        if not self._adapts:
            return
        model: Any = self.prepared()
        want, before = self.output(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.merge_adapter()
        torch.testing.assert_close(self.output(model), want, rtol=1e-9, atol=1e-11)
        model.unmerge_adapter()
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, before[name], rtol=1e-12, atol=1e-12)
        merged = model.merge_and_unload()
        assert not any(isinstance(module, BaseTunerLayer) for module in merged.modules())
        torch.testing.assert_close(self.output(merged), want, rtol=1e-9, atol=1e-11)

    def test_exported_it_is_the_same_function_as_plain_lora(self) -> None:
        if not self._adapts:
            return
        model = self.prepared()
        want = self.output(model)
        with tempfile.TemporaryDirectory() as folder:
            export_to_lora(model, folder)
            plain = PeftModel.from_pretrained(self.model().double(), folder).eval()
        assert type(plain.peft_config["default"]) is LoraConfig
        torch.testing.assert_close(self.output(plain), want, rtol=1e-9, atol=1e-11)

    @property
    def _adapts(self) -> bool:
        return self.method().trains != "weight"

    def _slopes(self, model: nn.Module) -> list[tuple[str, Tensor, float]]:
        dense = self.dense(model)
        self.loss(dense).backward()
        generator = torch.Generator().manual_seed(self.seed)
        return list(slopes(model, dense, directions=4, generator=generator))

    def _typed(self, model: nn.Module) -> dict[str, Tensor]:
        dtype = dtype_of(model)
        return {name: x.to(dtype) if x.is_floating_point() else x for name, x in self.batch().items()}


@contextmanager
def _run(model: nn.Module, how: str) -> Iterator[None]:
    """Run a model in evaluation mode, training mode, or training with gradient checkpointing."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    model.train(how != "eval")
    with warnings.catch_warnings():
        # transformers has new names for both; its oldest release here has the old ones alone.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
        if "reentrant" in how:
            inner.gradient_checkpointing_enable({"use_reentrant": how == "reentrant"})
            inner.enable_input_require_grads()
        try:
            yield
        finally:
            if "reentrant" in how:
                inner.disable_input_require_grads()
                inner.gradient_checkpointing_disable()
            model.eval()


def _linear(model: nn.Module, name: str) -> nn.Linear:
    return cast(nn.Linear, model.get_submodule(name))
