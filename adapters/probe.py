"""Before training: is every adapted layer called, does it get a gradient, and does it count in evaluation?

A parent may read a layer's weight instead of calling the layer: torch's attention does with ``out_proj``, its encoder
with all of its layers in eval without gradients. An adapter inside such a layer trains nothing, or trains and is then
left out of every evaluation, without a word. So a small batch goes through the model three times: as the base, to see
that it fits; in training mode with gradients; in eval mode without. The model is left as it was.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from adapters.inputs import Batch, call, known_inputs
from adapters.layer import without_adapters
from adapters.snapshot import Snapshot

__all__ = ["probe"]

logger = logging.getLogger(__name__)
_DOES_NOT_FIT = (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError)
Layers = dict[str, nn.Module]  # each a BaseTunerLayer too


def probe(model: nn.Module, batch: Batch | None = None) -> tuple[str, ...]:
    """Try every adapted layer of a model, on a batch given or made up.

    Args:
        model: a base model whose layers carry adapters, so that their names are those of the base.
        batch: what the model is called with; None makes up inputs for the model, or for as many parts of it as have
            known ones (`adapters.inputs.known_inputs`).

    Returns:
        The names of the layers of which nothing was seen: no inputs are known for them, the made-up ones do not fit or
        do not reach them (an expert, another modality), or weights are on the meta device.

    Raises:
        ValueError: if a layer is not called, gets no gradient or does not count in eval, naming it and what to do; if a
            given batch does not fit or does not reach every layer.
    """
    named = dict(model.named_modules())
    pending: Layers = {name: named[name] for name in named if isinstance(named[name], BaseTunerLayer)}
    if any(p.is_meta or hasattr(p, "full_tensor") for p in model.parameters()):
        logger.info("targets were not tried: weights are on the meta device or sharded")
        return tuple(pending)
    with Snapshot.undone(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.zero_grad(set_to_none=True)
        if batch is not None:
            pending = _try(model, batch, pending, given=True)
        else:
            for part in model.modules():
                inputs = known_inputs(part)
                if inputs is not None and not set(pending.values()).isdisjoint(part.modules()):
                    pending = _try(part, inputs, pending, given=False)
    if batch is not None and pending:
        raise ValueError(
            f"batch reaches {len(pending)} targets not at all, first {next(iter(pending))!r}: give one that does, or "
            "leave them out of target_modules"
        )
    if pending:
        logger.info("of %d targets, first %r, nothing was tried: give a batch", len(pending), next(iter(pending)))
    return tuple(pending)


def _try(part: nn.Module, inputs: Batch, pending: Layers, *, given: bool) -> Layers:
    """Try the pending layers inside ``part``; return those that are still pending."""
    inside = set(part.modules())
    layers = {name: one for name, one in pending.items() if one in inside}
    try:
        with without_adapters(layers.values()), torch.no_grad():
            call(part.train(), inputs)
    except _DOES_NOT_FIT as error:
        if given:
            raise ValueError(f"batch does not fit the model: {error}") from error
        return pending
    parents = {id(child): parent for parent in part.modules() for child in parent.children()}
    watched = [*layers.values(), *(parents[id(one)] for one in layers.values() if id(one) in parents)]
    with _noting_calls(watched) as called, torch.enable_grad():
        _backward(call(part.train(), inputs))
        if not all(_has_gradient(one) for one in layers.values()):
            _backward(call(part.eval(), inputs))  # what training skips at random, as layer drop does
        in_training = set(called)
        called.clear()
        with torch.no_grad():
            call(part.eval(), inputs)
        in_eval = set(called)
    rest = {name: one for name, one in pending.items() if name not in layers}
    for name, one in layers.items():
        trained, parent = _has_gradient(one), parents.get(id(one))
        counts = one in in_eval or (trained and _changes_the_output(one, part, inputs))
        if not trained and not {one, parent} & (in_training | in_eval):
            rest[name] = one
        elif not trained or not counts:
            raise ValueError(_complaint(name, one, parent, called=one in in_training, trained=trained))
    return rest


def _complaint(name: str, layer: nn.Module, parent: nn.Module | None, *, called: bool, trained: bool) -> str:
    holder = "its parent" if parent is None else f"its parent, a {type(parent).__name__},"
    if trained:
        return (
            f"target {name!r} trains but does not count in eval mode without gradients: {holder} takes another way "
            "there; leave it out of target_modules, take a column method, whose layers show their merged weight, or, "
            "where it is torch's encoder, call torch.backends.mha.set_fastpath_enabled(False)"
        )
    why = "no gradient reaches it, though it is called" if called else f"{holder} works without calling it"
    return (
        f"target {name!r} would train nothing: {why}; leave it out of target_modules, or give a batch in whose forward "
        f"pass it matters ({type(layer).__name__})"
    )


@contextmanager
def _noting_calls(modules: list[nn.Module]) -> Iterator[set[nn.Module]]:
    """Collect which modules run their forward; no hooks, of which torch's encoder takes notice."""
    called: set[nn.Module] = set()

    def noting(module: nn.Module, forward: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(forward)
        def wrapper(*args: object, **kwargs: object) -> object:
            called.add(module)
            return forward(*args, **kwargs)

        return wrapper

    before = {module: vars(module).get("forward") for module in modules}
    for module in before:
        vars(module)["forward"] = noting(module, module.forward)
    try:
        yield called
    finally:
        for module, forward in before.items():
            if forward is None:
                del vars(module)["forward"]
            else:
                vars(module)["forward"] = forward


def _backward(outputs: object) -> None:
    found = [t for t in _tensors(outputs) if t.requires_grad]
    torch.autograd.backward(found, [torch.ones_like(t) for t in found])


def _tensors(outputs: object) -> Iterator[Tensor]:
    """Every tensor of numbers that a model returns."""
    if isinstance(outputs, Tensor):
        if outputs.is_floating_point():
            yield outputs
    elif isinstance(outputs, Mapping):
        for one in outputs.values():
            yield from _tensors(one)
    elif isinstance(outputs, list | tuple):
        for one in outputs:
            yield from _tensors(one)


def _has_gradient(layer: nn.Module) -> bool:
    return any(p.grad is not None for p in layer.parameters())


@torch.no_grad()
def _changes_the_output(layer: nn.Module, part: nn.Module, inputs: Batch) -> bool:
    """Whether other values of a layer's trained parameters change what is computed in eval mode."""
    trained = [p for p in layer.parameters() if p.requires_grad]
    kept = [p.clone() for p in trained]
    state = torch.get_rng_state()
    before = list(_tensors(call(part.eval(), inputs)))
    generator = torch.Generator().manual_seed(0)
    try:
        for p in trained:
            p.copy_(torch.randn(p.shape, generator=generator))
        torch.set_rng_state(state)
        after = list(_tensors(call(part.eval(), inputs)))
    finally:
        for p, values in zip(trained, kept, strict=True):
            p.copy_(values)
    return not all(
        torch.allclose(one, other, rtol=0, atol=0, equal_nan=True) for one, other in zip(before, after, strict=True)
    )
