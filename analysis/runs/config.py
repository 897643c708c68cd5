"""The configuration of one run: everything that decides its result, and a key that names it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from analysis.records import config_key
from analysis.runs.settings import get_settings
from analysis.tasks import DATASETS, MODELS, DataOptions, base_fingerprint, task_names
from theory.defaults import METHOD, RANK, usual_alpha
from theory.methods import get_method

__all__ = ["RunConfig", "content", "fingerprint"]

_SCHEDULERS = ("linear", "cosine", "constant", "constant_with_warmup")


@functools.lru_cache(maxsize=64)
def fingerprint(path: str) -> str:
    """Name a local folder or file by what it holds: relative names and sizes, and ``config.json``'s text.

    Returns:
        12 hexadecimal digits; the name itself for what is no local path (a hub id).
    """
    root = Path(path).expanduser()
    if not root.exists():
        return path
    files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(root)}:{file.stat().st_size};".encode())
        if file.name == "config.json":
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


_LATER: dict[str, Any] = {
    "separator": None,
    "quoting": None,
    "missing": "refuse",
    "stratify": False,
    "split": "published",
    "layers": None,
    "packing": False,
    "generate": 0,
}
"""Options that are younger than the first records, and the values that leave a run as it was."""


def _deciding(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out names, what only refuses, and options younger than the first records where they change nothing."""
    return {
        name: value
        for name, value in values.items()
        if name not in ("model_name", "settings", "strict") and not (name in _LATER and value == _LATER[name])
    }


def content(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides a recorded configuration's results: data and model by what they hold, names left out."""
    kept = _deciding(record)
    if isinstance(kept.get("options"), Mapping):
        kept["options"] = _deciding(kept["options"])
    places = {name: kept[name]["fingerprint"] for name in ("data", "model") if isinstance(kept.get(name), Mapping)}
    return kept | places


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One fine-tuning run. None means: take the preset's value (see :meth:`resolve`).

    Attributes:
        task: a name of :func:`analysis.tasks.load.task_names`.
        data: the task's data, by local path or hub id.
        model: the base model, by local folder, hub id, preset name or ``tiny:NAME``.
        model_name: the model's name in records and tables; None takes the folder's or hub's.
        method: key of ``theory.methods.METHODS``.
        rank: r; ignored by full fine-tuning.
        alpha: updates are scaled by alpha / rank; None takes 2 rank (the paper's 32 at rank 16).
        links: chain length; None takes the settings' for chained methods, 1 otherwise.
        seed: of the split or subsample, the head, A or the selector, and the order of examples.
        settings: name in ``analysis.runs.settings.SETTINGS``, or "auto" (the preset model's family, else "digits",
            "text", or "pairs" where there is a second text).
        epochs: passes over the training examples; a fraction is allowed.
        batch_size: examples per optimizer step (and process).
        learning_rate: of the adapter. Of A for LoRA+, where None takes the settings' over ``lr_ratio``, so that B
            learns at the settings' rate (the paper's code sets it so).
        head_learning_rate: of the head; None takes the settings', else the adapter's (B's for LoRA+).
        weight_decay: AdamW's, of matrices.
        lr_ratio: lr_B / lr_A of methods that train both; None takes the method's own.
        chain_schedule: "run" (one learning-rate schedule) or "link" (it restarts with every link).
        lr_scheduler: transformers' name of the schedule.
        warmup: share of steps spent warming up.
        max_grad_norm: gradient clipping.
        precision: "fp32", "bf16" or "fp16" (autocast; weights stay float32).
        gradient_checkpointing: recompute activations in the backward pass.
        target_modules: names of the adapted modules; None takes query and value.
        layers: numbers, from 0, of the blocks whose modules are adapted; None takes all.
        packing: put several training examples of a language model into one sequence of ``options.max_length`` tokens,
            of which none sees another; batches and steps count sequences. Evaluation is example by example.
        generate: number of held-out prompts that a trained language model continues, for exact match and BLEU.
        select: "last" checkpoint, or "best" on a selection split carved out of the training examples.
        selection_share: share of the training examples carved out under "best".
        save_adapter: keep the trained weights.
        save_checkpoints: number of evenly spaced snapshots to keep (and the start).
        checkpoint_every: optimizer steps between resumable checkpoints; 0 for none.
        options: how the data is read.
    """

    task: str = "digits"
    data: str | None = None
    model: str | None = None
    model_name: str | None = None
    method: str = METHOD
    rank: int = RANK
    alpha: float | None = None
    links: int | None = None
    seed: int = 0
    settings: str = "auto"
    epochs: float | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    weight_decay: float | None = None
    lr_ratio: float | None = None
    chain_schedule: Literal["run", "link"] = "run"
    lr_scheduler: str | None = None
    warmup: float | None = None
    max_grad_norm: float = 1.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    target_modules: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    packing: bool = False
    generate: int = 0
    select: Literal["last", "best"] = "last"
    selection_share: float = 0.1
    save_adapter: bool = False
    save_checkpoints: int = 0
    checkpoint_every: int = 0
    options: DataOptions = field(default_factory=DataOptions)

    def __post_init__(self) -> None:
        """Check every value before any work.

        Raises:
            ValueError: for a value outside its range; the message names it and what is accepted.
        """
        get_method(self.method)
        if self.task not in task_names():
            raise ValueError(f"unknown task {self.task!r}; accepted: {', '.join(task_names())}")
        for name in ("rank", "links", "batch_size"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name in ("epochs", "learning_rate", "head_learning_rate", "alpha", "lr_ratio", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value!r}")
        for name in ("seed", "save_checkpoints", "checkpoint_every", "generate"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise ValueError(f"{name} must be a whole number of at least 0, got {getattr(self, name)!r}")
        if self.weight_decay is not None and not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must be at least 0 and finite, got {self.weight_decay!r}")
        if self.warmup is not None and not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must lie in [0, 1), got {self.warmup!r}")
        if not 0 < self.selection_share < 1:
            raise ValueError(f"selection_share must lie in (0, 1), got {self.selection_share!r}")
        for name, accepted in (
            ("precision", ("fp32", "bf16", "fp16")),
            ("select", ("last", "best")),
            ("chain_schedule", ("run", "link")),
            ("lr_scheduler", (None, *_SCHEDULERS)),
        ):
            if getattr(self, name) not in accepted:
                shown = ", ".join(str(value) for value in accepted if value is not None)
                raise ValueError(f"{name} must be one of {shown}, got {getattr(self, name)!r}")
        method = get_method(self.method)
        if self.links not in (None, 1) and not method.chained:
            raise ValueError(f"links={self.links}, but method {self.method!r} has no chain; leave links out")
        if self.layers is not None and method.trains == "weight":
            raise ValueError(f"layers={self.layers}, but method {self.method!r} trains every weight; leave layers out")
        self._check_language()
        if self.lr_ratio is not None and method.trains != "both":
            raise ValueError(f"lr_ratio={self.lr_ratio:g}, but method {self.method!r} trains one factor; leave it out")

    def _check_language(self) -> None:
        """Refuse what only language models have, for other tasks."""
        kind = DATASETS[self.task].kind if self.task in DATASETS else self.options.kind
        for name in ("packing", "generate"):
            if getattr(self, name) and kind != "causal-lm":
                raise ValueError(f"{name} is for causal-lm tasks; task {self.task!r} is none")

    def resolve(self) -> RunConfig:
        """Return the configuration with every None that a preset decides filled in.

        >>> RunConfig(task="digits", method="c3la").resolve().links
        3
        """
        method = get_method(self.method)
        name = self.settings
        if name == "auto":
            name = MODELS[self.model].settings if self.model in MODELS else self._own_settings()
        settings = get_settings(name)
        rate = settings.full_learning_rate if method.trains == "weight" else settings.learning_rate
        ratio = None if method.lr_ratio == 1 else settings.lr_ratio if self.lr_ratio is None else self.lr_ratio
        ratio_or_one = 1.0 if ratio is None else ratio
        own_rate = rate / ratio_or_one if self.learning_rate is None else self.learning_rate
        head_rate = settings.head_learning_rate
        defaults = {
            "alpha": usual_alpha(self.rank),
            "links": settings.links if method.chained else 1,
            "epochs": settings.epochs,
            "batch_size": settings.batch_size,
            "learning_rate": own_rate,
            "head_learning_rate": own_rate * ratio_or_one if head_rate is None else head_rate,
            "weight_decay": settings.weight_decay,
            "lr_scheduler": settings.scheduler,
            "warmup": settings.warmup,
            "lr_ratio": ratio,
        }
        changes: dict[str, Any] = {key: value for key, value in defaults.items() if getattr(self, key) is None}
        if method.trains == "weight":
            changes |= {"rank": 1, "alpha": usual_alpha(1)}
        if self.model_name is None:
            changes["model_name"] = self._shown_model()
        if self.options.max_length is None:
            changes["options"] = dataclasses.replace(self.options, max_length=settings.max_length)
        return dataclasses.replace(self, settings=name, **changes)

    def _own_settings(self) -> str:
        if self.task == "digits":
            return "digits"
        columns = DATASETS[self.task].columns if self.task in DATASETS else {"text_pair": self.options.text_pair}
        return "pairs" if columns.get("text_pair") is not None else "text"

    def _shown_model(self) -> str:
        if self.model is None:
            return "digits-vit"
        path = Path(self.model).expanduser()
        return path.name if path.exists() else self.model

    def as_record(self) -> dict[str, Any]:
        """Return the resolved configuration as plain values, local paths replaced by names and fingerprints."""
        record = dataclasses.asdict(self.resolve())
        record["rank"] = None if get_method(self.method).trains == "weight" else record["rank"]
        for name in ("data", "model"):
            value = record[name]
            if value is not None:
                shown = Path(value).expanduser().name if Path(value).expanduser().exists() else value
                record[name] = {"name": shown, "fingerprint": fingerprint(value)}
        if self.task == "digits" and self.model is None:
            record["model"] = {"name": record["model_name"], "fingerprint": base_fingerprint()}
        return record

    def key(self) -> str:
        """Return the hash that names the run: equal for equal results, whatever the paths on this machine."""
        return config_key(content(self.as_record()))

    def command(self) -> str:
        """Return the command that makes this run again, with DATA and MODEL for local paths.

        >>> RunConfig(method="cla", rank=4, seed=2).command()
        'python -m analysis run --method cla --rank 4 --first-seed 2'
        """
        words = ["python -m analysis run"]
        for part in (self, self.options):
            for item in dataclasses.fields(part):
                value = getattr(part, item.name)
                if item.name == "options" or value == item.default:
                    continue
                flag = "--first-seed" if item.name == "seed" else f"--{item.name.replace('_', '-')}"
                if item.name in ("data", "model") and Path(value).expanduser().exists():
                    value = item.name.upper()
                values = value if isinstance(value, tuple) else () if value is True else (value,)
                words += [flag, *(shlex.quote(f"{v:g}" if isinstance(v, float) else str(v)) for v in values)]
        return " ".join(words)

    @staticmethod
    def from_mapping(values: Mapping[str, Any]) -> RunConfig:
        """Build a configuration from plain values, data options flat beside the rest or under ``options``.

        Raises:
            ValueError: if a key is unknown.
        """
        own = {item.name for item in dataclasses.fields(RunConfig)} - {"options"}
        data = {item.name for item in dataclasses.fields(DataOptions)}
        nested = values.get("options") or {}
        options = dataclasses.asdict(nested) if isinstance(nested, DataOptions) else dict(nested)
        kept: dict[str, Any] = {}
        for key, value in values.items():
            if key in own:
                kept[key] = tuple(value) if isinstance(value, list) else value
            elif key in data:
                options[key] = value
            elif key != "options":
                raise ValueError(f"unknown setting {key!r}; accepted: {', '.join(sorted(own | data))}")
        for key in ("choices", "label_range"):
            if isinstance(options.get(key), list):
                options[key] = tuple(options[key])
        return RunConfig(**kept, options=DataOptions(**options))
