"""The bundled task: scikit-learn's digits, a ViT pretrained on classes 0-4, fine-tuned on classes 5-9.

Every image is real and ships with scikit-learn (1,797 of 8 x 8 pixels), so W0 is truly pretrained and
dW truly adapts, with no download. W0 is committed beside this module: trained anew, it would differ in its last
digits on another processor, and with it every run and certificate. ``python -m analysis pretrain`` trains it again
and says how far the two are apart.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save
from sklearn.datasets import load_digits
from tqdm import tqdm
from transformers import ViTConfig, ViTForImageClassification

from analysis.records import atomic_write_bytes, cache_folder, check_writable, config_key
from analysis.tasks.batches import stack_images
from analysis.tasks.redraw import redraw
from analysis.tasks.report import report_data, shown_image
from analysis.tasks.screen import Screened
from analysis.tasks.task import DataOptions, Task

__all__ = [
    "BaseDistance",
    "PRETRAINING",
    "base_distance",
    "base_fingerprint",
    "base_weights",
    "digits_model",
    "digits_task",
    "pretrain",
    "write_base",
]

PRETRAINING: dict[str, Any] = {
    "version": 1,
    "classes": [0, 1, 2, 3, 4],
    "architecture": {
        "image_size": 8,
        "patch_size": 2,
        "num_channels": 1,
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    },
    "epochs": 20,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "seed": 0,
}
_SHIPPED = Path(__file__).parent / "weights"
_CLASSES = (5, 6, 7, 8, 9)
_NUM_TRAIN = 200


@functools.lru_cache(maxsize=1)
def _images() -> tuple[np.ndarray, np.ndarray]:
    digits = load_digits()
    return (digits.images / 8.0 - 1.0).astype(np.float32)[:, None], digits.target


def digits_task(*, model: str | None, seed: int, options: DataOptions) -> Task:
    """Return digits 5-9: ``num_train`` of the 896 images (200 by default) train, all others are held out.

    Args:
        model: an image model's folder or hub id for 1-channel 8 x 8 images; None is the bundled ViT.
        seed: seed of the split.
        options: ``num_train`` and ``num_heldout`` are used.

    Raises:
        ValueError: if ``num_train`` leaves fewer than 50 images held out.
    """
    images, targets = _images()
    pool = np.flatnonzero(np.isin(targets, _CLASSES))
    count = options.num_train if options.num_train is not None else _NUM_TRAIN
    if count > len(pool) - 50:
        raise ValueError(f"num_train of digits must be at most {len(pool) - 50} of its {len(pool)} images, got {count}")
    order = np.random.default_rng(seed).permutation(pool)
    train, heldout = order[:count], order[count:][: options.num_heldout]

    def examples(indices: np.ndarray) -> list[dict[str, Any]]:
        return [
            {"pixel_values": torch.from_numpy(images[i]), "labels": _CLASSES.index(int(targets[i]))} for i in indices
        ]

    parts = {"train": train, "heldout": heldout}
    classes = {split: [str(target) for target in targets[part]] for split, part in parts.items()}
    names = tuple(str(digit) for digit in _CLASSES)
    report = report_data(
        kind="image-classification",
        parts=[Screened(where="scikit-learn's digits 5-9", rows=[{}] * len(pool), read=len(pool))],
        rows={split: [{"label": name} for name in members] for split, members in classes.items()},
        inputs={split: [images[i].tobytes() for i in part] for split, part in parts.items()},
        classes=classes,
        names=names,
        shown=[shown_image(torch.from_numpy(images[part[0]]), str(targets[part[0]])) for part in parts.values()],
    )
    return Task(
        name="digits",
        kind="image-classification",
        train=examples(train),
        heldout=examples(heldout),
        num_labels=len(_CLASSES),
        label_names=names,
        collate=stack_images,
        metric_name="accuracy",
        max_loss=math.log(10 * len(_CLASSES)),
        model=model,
        seed=seed,
        notes=("8 x 8 digits 5-9; base model pretrained on digits 0-4; split drawn by seed",),
        overlap=report.overlap,
        report=report,
        stratify=options.stratify,
    )


def _build(num_labels: int) -> ViTForImageClassification:
    return ViTForImageClassification(ViTConfig(**{**PRETRAINING["architecture"], "num_labels": num_labels}))


def pretrain() -> dict[str, torch.Tensor]:
    """Train on classes 0-4 as :data:`PRETRAINING` says, with AdamW and a linear schedule; ten seconds on one thread.

    Returns:
        The state dict without the head. One processor gives the same bits each time, another one others.
    """
    images, targets = _images()
    pool = np.flatnonzero(np.isin(targets, PRETRAINING["classes"]))
    pixels, labels = torch.from_numpy(images[pool]), torch.from_numpy(targets[pool])
    batch, epochs = PRETRAINING["batch_size"], PRETRAINING["epochs"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(PRETRAINING["seed"])
            model = _build(len(PRETRAINING["classes"])).train()
            optimizer = torch.optim.AdamW(
                model.parameters(), lr=PRETRAINING["learning_rate"], weight_decay=PRETRAINING["weight_decay"]
            )
            steps = epochs * math.ceil(len(pool) / batch)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
            for _ in tqdm(range(epochs), desc="pretraining on digits 0-4", unit="epoch", leave=False):
                for chosen in torch.randperm(len(pool)).split(batch):
                    loss = model(pixel_values=pixels[chosen], labels=labels[chosen]).loss
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
    finally:
        torch.set_num_threads(threads)
    return {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("classifier.")}


def base_weights() -> dict[str, torch.Tensor]:
    """Return the weights pretrained on digits 0-4, without a head.

    The committed file is read where :data:`PRETRAINING` is what it was made with. Training rounds differently on
    another processor, so another configuration's weights are trained here once and cached in :func:`cache_folder`.

    Raises:
        ValueError: if the cache cannot be written to, or a file is corrupt.
    """
    shipped = _shipped()
    if shipped.is_file():
        return _read(shipped, mend="install the package again")
    return _trained_here(cache_folder() / shipped.name)


def _shipped() -> Path:
    return _SHIPPED / f"digits-vit-{config_key(PRETRAINING)}.safetensors"


def base_fingerprint() -> str:
    """Name the weights of :func:`base_weights` without training them.

    Returns:
        The first 12 hexadecimal digits of the committed file's SHA-256, or ``"trained-here-<hash of PRETRAINING>"``.
    """
    shipped = _shipped()
    return _sha256(shipped)[:12] if shipped.is_file() else f"trained-here-{config_key(PRETRAINING)}"


@functools.lru_cache(maxsize=2)
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _trained_here(path: Path) -> dict[str, torch.Tensor]:
    check_writable(path.parent)
    if not path.exists():
        with open(path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                write_base(pretrain(), path)
    return _read(path, mend="delete it to make it again")


@functools.lru_cache(maxsize=2)
def _read(path: Path, *, mend: str) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except Exception as error:
        raise ValueError(f"base model {str(path)!r} is corrupt ({error}); {mend}") from None


def write_base(state: dict[str, torch.Tensor], path: str | Path) -> Path:
    """Write a base model's weights as safetensors, whole or not at all."""
    return atomic_write_bytes(path, save(state, metadata={"format": "pt"}))


@dataclass(frozen=True, kw_only=True)
class BaseDistance:
    """How far two base models are apart.

    Attributes:
        relative: Frobenius norm of the difference of all weights over that of the second model.
        largest: largest difference of a weight.
        cosine: mean over the images of digits 5-9 of the cosine of the two models' features (the class token's).
    """

    relative: float
    largest: float
    cosine: float


def base_distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> BaseDistance:
    """Compare two base models of the digits, weight by weight and by what they make of images.

    Raises:
        ValueError: if they do not have the same weights by name and shape.
    """
    if {name: w.shape for name, w in one.items()} != {name: w.shape for name, w in other.items()}:
        raise ValueError("one and other must be base models of one architecture: their weights differ in name or shape")
    apart = torch.cat([(one[name] - other[name]).double().reshape(-1) for name in one])
    size = torch.cat([w.double().reshape(-1) for w in other.values()])
    images, targets = _images()
    pixels = torch.from_numpy(images[np.isin(targets, _CLASSES)])
    features = []
    for state in (one, other):
        with torch.random.fork_rng(devices=[]):
            model = _build(len(_CLASSES)).eval()
        model.load_state_dict(state, strict=False)
        with torch.no_grad():
            features.append(model.vit(pixel_values=pixels).last_hidden_state[:, 0])
    cosine = torch.nn.functional.cosine_similarity(*features).double().mean()
    return BaseDistance(
        relative=float(apart.norm() / size.norm()), largest=float(apart.abs().max()), cosine=float(cosine)
    )


def digits_model(*, num_labels: int, seed: int) -> ViTForImageClassification:
    """Return the ViT pretrained on digits 0-4 with a new head drawn by ``seed``, the same bits on every processor.

    Raises:
        ValueError: see :func:`base_weights`; and if this version of transformers gives a ViT's weights other names.
    """
    with torch.random.fork_rng(devices=[]):
        model = _build(num_labels)
    missing, unknown = model.load_state_dict(base_weights(), strict=False)
    if unknown or any(not name.startswith("classifier.") for name in missing):
        raise ValueError(
            f"transformers {transformers.__version__} names a ViT's weights otherwise than the base model's file does "
            f"({[*unknown, *missing][0]!r}); install a version that pyproject.toml allows"
        )
    redraw(model, missing, seed=seed)
    return model.eval()
