"""One line from a model and a method's name to what a training loop needs.

With `transformers.Trainer`::

    p = prepare(model, "c3la", rank=16, links=10, learning_rate=3e-4)
    Trainer(model=p.model, optimizers=(p.create_optimizer(), None), callbacks=p.callbacks, ...).train()

Such a script runs on several processes unchanged: ``torchrun --nproc_per_node 2 train.py``, or
``accelerate launch --multi_gpu --num_processes 8 train.py``. With ``fully_shard`` (FSDP2) in a loop of one's own,
shard first and call ``create_optimizer`` afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn

from adapters.chain import ChainCallback
from adapters.families import Wrap, hooks_of
from adapters.frozen import FrozenSum
from adapters.inputs import Batch
from adapters.linked import LinkedFactor
from adapters.probe import probe
from adapters.snapshot import Snapshot
from adapters.targets import named_under, target_names, warn_of_untrained
from theory.defaults import RANK, usual_alpha
from theory.heads import fresh_parameters, trained_heads
from theory.methods import Method, get_method

__all__ = ["Prepared", "Rates", "prepare"]


class Rates(TypedDict, total=False):
    """What the optimizer is told.

    Attributes:
        learning_rate: of the adapter (of A, for LoRA+), or of everything for ``"fft"``; 3e-4 if not given.
        head_learning_rate: of ``modules_to_save``; None takes ``learning_rate``.
        weight_decay: decoupled decay of matrices; vectors (biases, norms) are not decayed. 0 if not given.
        lr_ratio: lr_B / lr_A; None takes the method's own (16 for LoRA+).
    """

    learning_rate: float
    head_learning_rate: float | None
    weight_decay: float
    lr_ratio: float | None


_RATES: Rates = {"learning_rate": 3e-4, "head_learning_rate": None, "weight_decay": 0.0, "lr_ratio": None}


@dataclass
class Prepared:
    """A model ready to train.

    Attributes:
        model: a `peft.PeftModel`, or the model itself for full fine-tuning.
        method: the method as data.
        callbacks: callbacks for `transformers.Trainer`; a chain's moves happen there.
        rates: learning rates and weight decay, from which the groups are made.
        untried: names of the targets that no batch was tried on, see `prepare`.
    """

    model: nn.Module
    method: Method
    callbacks: list[Any] = field(default_factory=list)
    rates: dict[str, Any] = field(default_factory=dict)
    untried: tuple[str, ...] = ()

    @property
    def optimizer_groups(self) -> list[dict[str, Any]]:
        """Parameter groups with learning rates and weight decay, over the model's parameters as they are now.

        FSDP2 replaces parameters, so ask after ``fully_shard``.
        """
        return _groups(self.model, **self.rates)

    def create_optimizer(self, **arguments) -> torch.optim.AdamW:
        """Return AdamW over the groups; keyword arguments go to `torch.optim.AdamW`."""
        return torch.optim.AdamW(self.optimizer_groups, **arguments)


def prepare(
    model: nn.Module,
    method: str,
    *,
    rank: int = RANK,
    alpha: float | None = None,
    target_modules: str | list[str] | None = None,
    links: int = 1,
    schedule: str = "run",
    seed: int = 0,
    modules_to_save: list[str] | None = None,
    batch: Batch | None = None,
    **rates: Unpack[Rates],
) -> Prepared:
    """Make ``model`` ready for one of the methods.

    The defaults are the hyper-parameters of arXiv:2606.13767 (r = 16, alpha = 32, query and value).

    A small batch then goes through the model: each target has to be called, to get a gradient and to count in eval mode
    (`adapters.probe.probe`). Whatever raises, here or there, leaves the model as it was, hooks, classes and random
    numbers included.

    Args:
        model: a transformers model (or any module, with ``target_modules``); adapted in place, as PEFT does.
        method: a key of `theory.methods.METHODS`.
        rank: rank, or columns, per link; ignored by ``"fft"``.
        alpha: updates are scaled by ``alpha / rank``; None takes twice the rank. PaCA trains the columns themselves
            and ignores it.
        target_modules: as in PEFT: names, a pattern, ``"all-linear"``, or None for query and value.
        links: length of the chain.
        schedule: ``"run"`` or ``"link"``, see `adapters.chain.ChainCallback`.
        seed: seed of the selectors or of A.
        modules_to_save: modules trained in full beside the adapter; None takes the model's head
            (`theory.heads.trained_heads`), ``[]`` none.
        batch: what the model is called with, to try the targets on: a tensor, keyword arguments, or positional ones.
            None makes inputs up, for transformers' models and torch's attention and encoders; of other modules nothing
            is tried, and ``untried`` of the result names them.
        **rates: ``learning_rate`` (3e-4), ``head_learning_rate``, ``weight_decay`` and ``lr_ratio``, see `Rates`.

    Returns:
        What to hand to `transformers.Trainer` or a loop of one's own.

    Raises:
        TypeError, ValueError: for arguments outside their range, naming argument and value, before the model is
            touched.
        ValueError: if a target would train nothing or not count in eval mode, naming it; the model is as it was.

    Warns:
        UntrainedWarning: naming weights that no checkpoint held and that are neither adapted nor trained, and heads
            that ``modules_to_save`` leaves out beside others.

    >>> prepared = prepare(nn.Sequential(nn.Linear(4, 3)), "cla", rank=2, target_modules=["0"])
    >>> sum(p.numel() for p in prepared.model.parameters() if p.requires_grad)
    6
    """
    chosen = get_method(method)
    if unknown := sorted(rates.keys() - _RATES.keys()):
        raise TypeError(f"prepare() takes no argument {unknown[0]!r}; rates are {', '.join(_RATES)}")
    told: Rates = {**_RATES, **rates}
    _check(chosen, rank=rank, alpha=alpha, links=links, schedule=schedule, **told)
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ValueError("model already carries adapters; give the base model (unload or merge_and_unload first)")
    heads = list(trained_heads(model)) if modules_to_save is None else modules_to_save
    missing = [head for head in heads if not named_under(model, [head])]
    if missing:
        raise ValueError(f"modules_to_save names {missing[0]!r}, which matches no module of the model")
    callbacks: list[Any] = []
    targets = () if chosen.trains == "weight" else target_names(model, target_modules, trained_in_full=heads)
    asked = Wrap(
        method=chosen,
        rank=rank,
        alpha=usual_alpha(rank) if alpha is None else alpha,
        links=links,
        seed=seed,
        targets=tuple(targets),
        heads=tuple(heads),
    )
    with Snapshot.undone(model, on_error_alone=True):
        if chosen.trains != "weight":
            warn_of_untrained(model, targets=targets, trained_in_full=heads)
        if fresh := fresh_parameters(model):
            vars(model)["missing_keys"] = list(fresh)  # wrapping hides where loading marked what it filled
        prepared = hooks_of(chosen.family).wrap(model, asked)
        untried = probe(model, batch) if targets else ()
    if chosen.chained:
        callbacks.append(ChainCallback(prepared, links=links, schedule=schedule))
        _keep_sums_local(prepared)
    ratio = told.pop("lr_ratio")
    groups = {**told, "heads": heads, "ratio": chosen.lr_ratio if ratio is None else ratio}
    return Prepared(model=prepared, method=chosen, callbacks=callbacks, rates=groups, untried=untried)


def _keep_sums_local(model: nn.Module) -> None:
    """Keep DDP from sending the frozen sums at every forward: they are equal on all ranks by construction."""
    frozen = [name for name, module in model.named_modules() if isinstance(module, FrozenSum | LinkedFactor)]
    read_by_ddp: Any = model
    read_by_ddp._ddp_params_and_buffers_to_ignore = [
        name for name, _ in model.named_buffers() if name.rpartition(".")[0] in frozen
    ]


def _check(method: Method, *, rank, alpha, links, learning_rate, head_learning_rate, weight_decay, lr_ratio, schedule):
    for name, value in (("rank", rank), ("links", links)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    for name, value in (("alpha", alpha), ("learning_rate", learning_rate), ("head_learning_rate", head_learning_rate)):
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name} must be above 0 and finite, got {value!r}")
    if not 0 <= weight_decay < float("inf"):
        raise ValueError(f"weight_decay must be at least 0 and finite, got {weight_decay!r}")
    if links > 1 and not method.chained:
        raise ValueError(f"links={links}, but {method.key!r} does not chain; accepted: 1")
    if lr_ratio is not None and method.trains != "both":
        raise ValueError(f"lr_ratio={lr_ratio!r} needs two trained factors, but {method.key!r} trains one")
    if lr_ratio is not None and not 0 < lr_ratio < float("inf"):
        raise ValueError(f"lr_ratio must be above 0 and finite, got {lr_ratio!r}")
    if schedule not in ("run", "link"):
        raise ValueError(f"schedule must be 'run' or 'link', got {schedule!r}")


def _groups(model, *, heads, learning_rate, head_learning_rate, weight_decay, ratio) -> list[dict[str, Any]]:
    """Group trainable parameters by learning rate and decay, in a fixed order."""
    named = set(named_under(model, heads))
    inside_head = {
        id(p)
        for name, module in model.named_modules()
        if isinstance(module, ModulesToSaveWrapper) or (not isinstance(module, BaseTunerLayer) and name in named)
        for p in module.parameters()
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = learning_rate
        if id(parameter) in inside_head:
            rate = learning_rate if head_learning_rate is None else head_learning_rate
        elif ".lora_B." in name:
            rate = learning_rate * ratio
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
