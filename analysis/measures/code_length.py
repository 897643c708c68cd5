"""How many bits does a finished run's update need? A code length as a candidate measure of generalization.

The certificates of ``analysis.certificates.certify`` train for a short code. Here a run that was trained as usual is
coded afterwards: every trained number is rounded to a multiple of its tensor's step and written with the adaptive code
of ``theory.certificates.coding``. W0, seeds, frozen factors and selectors are known to the decoder, as they are in
Table 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from adapters import factors
from analysis.measures.registry import CODE_SETTINGS
from analysis.runs import LoadedRun
from analysis.tasks import doubtful_errors, evaluate, forward_error, load_model
from theory.certificates import adaptive_bits

__all__ = ["TrainedPart", "code_of_run", "quantize_tensor", "take", "trained_parts"]

_STEP_BITS = 6
_SIZE_BITS = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedPart:
    """One trained weight of the base model.

    Attributes:
        name: the parameter's name in the base model.
        numbers: what was trained, as arrays that are coded one by one.
        update: the arrays, rounded or not -> the change of the parameter, in its own layout.
    """

    name: str
    numbers: tuple[Tensor, ...]
    update: Callable[[Sequence[Tensor]], Tensor]


def trained_parts(run: LoadedRun) -> Iterator[TrainedPart]:
    """Yield every weight that a run trained; parameters alone, no buffers.

    Columns are coded merged (a column that two links trained counts once), factors as B alone where A was frozen
    and as B and A where both were trained, all else (heads, full fine-tuning) as its dense change.
    """
    model = run.model
    if not isinstance(model, PeftModel):
        for name, parameter in model.named_parameters():
            change = parameter.detach() - run.base_state[name]
            yield TrainedPart(name=name, numbers=(change,), update=lambda arrays: arrays[0])
        return
    records = {record["name"]: record for record in run.record["updates"]}
    base = dict(model.get_base_model().named_modules())
    for layer in factors(model):
        record = records[layer.name]
        transposed = isinstance(cast(BaseTunerLayer, base[layer.name]).get_base_layer(), Conv1D)
        if record["kind"] == "columns":
            columns = torch.tensor(record["support"])
            numbers: tuple[Tensor, ...] = ((layer.left @ layer.right)[:, columns],)
            shape = layer.base_weight.shape

            def update(arrays: Sequence[Tensor], columns: Tensor = columns, shape: Any = shape) -> Tensor:
                return torch.zeros(shape).index_copy_(1, columns, arrays[0])
        elif record["support"] is None:  # an update of full rank
            numbers = (layer.left @ layer.right,)

            def update(arrays: Sequence[Tensor]) -> Tensor:  # type: ignore[misc]
                return arrays[0]
        elif record["a_trained"]:
            numbers = (layer.left, layer.right)

            def update(arrays: Sequence[Tensor]) -> Tensor:  # type: ignore[misc]
                return arrays[0] @ arrays[1]
        else:
            numbers, right = (layer.left,), layer.right

            def update(arrays: Sequence[Tensor], right: Tensor = right) -> Tensor:  # type: ignore[misc]
                return arrays[0] @ right

        oriented = (lambda arrays, made=update: made(arrays).t()) if transposed else update
        yield TrainedPart(name=f"{layer.name}.weight", numbers=numbers, update=oriented)
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            for key, parameter in module.modules_to_save["default"].named_parameters():
                full = f"{name}.{key}"
                change = parameter.detach() - run.base_state[full]
                yield TrainedPart(name=full, numbers=(change,), update=lambda arrays: arrays[0])


def quantize_tensor(values: Tensor, *, step_over_rms: float) -> tuple[Tensor, float]:
    r"""Round a tensor to multiples of a step and count the bits of its code.

    The step is the power of two nearest to ``step_over_rms`` times the root mean square (its exponent: 6 bits); the
    largest multiple follows (16 bits), then the symbols in the adaptive code. A tensor that rounds to zero costs the
    22 bits alone.

    Args:
        values: finite numbers, any shape.
        step_over_rms: step over the tensor's root mean square.

    Returns:
        The rounded tensor and its bits.

    Raises:
        ValueError: if a value is not finite, or the largest multiple does not fit in 16 bits.
    """
    if not torch.isfinite(values).all():
        raise ValueError("the update holds a value that is not finite; a run that diverged has no code")
    rms = float(values.double().square().mean().sqrt()) if values.numel() else 0.0
    if rms == 0:
        return torch.zeros_like(values), float(_STEP_BITS + _SIZE_BITS)
    exponent = min(max(round(math.log2(step_over_rms * rms)), -48), 15)
    step = 2.0**exponent
    symbols = (values.double() / step).round().long()
    largest = int(symbols.abs().max())
    if largest >= 1 << _SIZE_BITS:
        raise ValueError(f"the largest multiple of the step, {largest}, does not fit in {_SIZE_BITS} bits")
    counts: NDArray[np.int64] = torch.bincount((symbols + largest).flatten(), minlength=2 * largest + 1).numpy()
    return (symbols * step).to(values), _STEP_BITS + _SIZE_BITS + adaptive_bits(counts)


def take(run: LoadedRun, settings: Mapping[str, Any]) -> dict[str, float] | None:
    """Take what the instrument ``code`` measures; None where there is no 0-1 loss, by which a code is chosen."""
    return None if run.task.kind in ("regression", "causal-lm") else code_of_run(run, settings=settings)


def code_of_run(run: LoadedRun, *, settings: Mapping[str, Any] = CODE_SETTINGS) -> dict[str, float]:
    r"""Code a finished run at several steps, and keep the coarsest that hardly raises the training error.

    The Occam bound of that code, :math:`\hat R + \sqrt{(b \ln 2 + \ln(1/\delta)) / (2 n)}` on the 0-1 loss
    (Langford 2005), holds with probability 1 - delta over the training examples, the choice of the step paid for. It
    is printed unclipped, because runs are compared by it: above one it says nothing.

    Args:
        run: from ``analysis.runs.finetune.load_run``; a classification run.
        settings: as in `analysis.measures.registry.CODE_SETTINGS`.

    Returns:
        ``bits``: of the coarsest code whose training error is at most one percentage point above the run's own (the
        finest that can be written where none is); ``bound``: its Occam bound; ``rounded_error``: its training error;
        ``rounding_step``: its step over the root mean square; ``rounding_edge``: the fewest training examples by which
        any step tried missed or met the limit (0: met it exactly); ``rounding_doubtful``: the most errors that rounding
        in a forward pass can flip between the run and any step tried. Where the edge is above it, the choice of the
        step is the same on every processor.

    Raises:
        ValueError: for a task without 0-1 loss, or an update that is not finite.
    """
    if run.task.kind in ("regression", "causal-lm"):
        raise ValueError(f"a code's length is measured by the 0-1 loss, which a {run.task.kind} task does not have")
    examples = list(run.task.train)
    own = evaluate(run.model, run.task, examples)
    own_doubtful = doubtful_errors(own, forward_error(run.model, own.largest_logit))
    # whole numbers of errors, so that a rise of exactly the tolerance is within it
    allowed = int(own.errors.sum()) + math.floor(settings["tolerance"] * len(examples) + 1e-9)
    edges, doubtful = [], []
    parts = list(trained_parts(run))
    target = load_model(run.task, seed=int(run.record["config"]["seed"]))
    parameters = dict(target.named_parameters())
    found: dict[str, float] = {}
    for step in settings["steps"]:
        bits = math.log2(len(settings["steps"]))
        try:
            rounded = [[quantize_tensor(values, step_over_rms=step) for values in part.numbers] for part in parts]
        except ValueError:
            if found:
                break  # too fine for the code's alphabet; the finest code that could be written stays
            raise
        with torch.no_grad():
            for part, coded in zip(parts, rounded, strict=True):
                bits += sum(cost for _, cost in coded)
                parameters[part.name].copy_(run.base_state[part.name] + part.update([values for values, _ in coded]))
        outputs = evaluate(target, run.task, examples)
        error, made = float(outputs.errors.mean()), int(outputs.errors.sum())
        # one error more than allowed is one too many: the limit lies between the two
        edges.append(allowed - made if made <= allowed else made - allowed - 1)
        doubtful.append(own_doubtful + doubtful_errors(outputs, forward_error(target, outputs.largest_logit)))
        penalty = (bits * math.log(2) + math.log(1 / settings["delta"])) / (2 * len(examples))
        found = {"bits": bits, "bound": error + math.sqrt(penalty), "rounded_error": error, "rounding_step": step}
        if made <= allowed:
            break
    return found | {"rounding_edge": float(min(edges)), "rounding_doubtful": float(max(doubtful))}
