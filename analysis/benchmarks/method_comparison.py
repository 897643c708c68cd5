"""The same measurements in the shape of peft's own ``method_comparison`` results.

peft keeps one JSON per experiment (``run_info``, ``train_info``, ``meta_info``) and a table made from them. What
this benchmark does not measure (accuracy, forgetting: weights and tokens are random) is null, never a guess.
"""

from __future__ import annotations

import dataclasses
import math
import platform
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from peft import PeftModel
from transformers import PreTrainedModel

from analysis.benchmarks.adapter_cases import CASES, Setting, attach, base_model

__all__ = ["COLUMNS", "comparison_record", "comparison_table"]

COLUMNS = (
    "experiment_name", "peft_type", "total_time", "train_time", "test_accuracy", "train_loss",
    "accelerator_memory_max", "accelerator_memory_reserved_99th", "accelerator_memory_reserved_avg",
    "num_trainable_params", "file_size", "created_at", "task_name", "forgetting*", "model_id", "train_config",
    "peft_config", "train_samples", "peft_version", "peft_branch", "transformers_version", "datasets_version",
    "torch_version", "package_info", "system_info", "train_total_tokens", "bitsandbytes_version",
)  # fmt: skip
_NO_PEFT = ("floor", "naive-gather")


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _file_size(model: PreTrainedModel | PeftModel) -> int:
    """Bytes of the weights file that ``save_pretrained`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))


def comparison_record(setting: Setting, key: str, row: dict[str, Any], *, repeats: int) -> dict[str, Any] | None:
    """One measured case as peft's ``method_comparison`` writes an experiment.

    Args:
        setting: the setting it was measured in.
        key: the case.
        row: its entry in ``analysis.benchmarks.adapters.measure``.
        repeats: steps timed.

    Returns:
        The record, or None for a case that is no PEFT method (the floor, the naive gather).
    """
    if key in _NO_PEFT:
        return None
    on_meta = setting.device != "cpu"
    model = attach(
        base_model(dataclasses.replace(setting, device="cpu", layers=1 if on_meta else setting.layers)), key, setting
    )
    config = None if key == "fft" else cast(PeftModel, model).peft_config["default"].to_dict()
    tokens = setting.length * setting.sequences
    name = f"{key}-{setting.targets.replace(',', '')}-{setting.length}-{setting.dtype}"
    packages = {f"{package}-version": _installed(package) for package in _PACKAGES}
    return {
        "run_info": {
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "total_time": row["seconds"] * repeats,
            "experiment_name": name,
            "peft_branch": "release",
            "train_config": {"model_id": "random Llama", **dataclasses.asdict(setting)},
            "peft_config": None if config is None else {k: _plain(v) for k, v in config.items()},
            "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": row["peak_bytes"] or 0,
            "accelerator_memory_max": row["peak_bytes"] or 0,
            "accelerator_memory_reserved_99th": row["peak_bytes"] or 0,
            "train_time": row["seconds"] * repeats,
            "file_size": None if on_meta else _file_size(cast(PeftModel, model)),
            "num_trainable_params": row["trained"],
            "status": "success",
            "metrics": [
                {
                    "step": repeats,
                    "test accuracy": None,
                    "train loss": None,
                    "forgetting": None,
                    "train samples": setting.sequences * repeats,
                    "train total tokens": tokens * repeats,
                }
            ],
        },
        "meta_info": {
            "package_info": packages,
            "system_info": {"system": platform.system(), "machine": platform.machine(), "device": setting.device},
            "title": CASES[key].title,
        },
    }


_PACKAGES = ("peft", "transformers", "datasets", "torch", "bitsandbytes")


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset | tuple | list):
        return sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | dict | type(None)) else str(value)


def comparison_table(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Tabulate records in the columns of peft's ``method_comparison``, task "random tokens"."""
    rows = []
    for record in records:
        run, train, meta = record["run_info"], record["train_info"], record["meta_info"]
        last, packages = train["metrics"][-1], meta["package_info"]
        cells = {
            **{key: run[key] for key in ("experiment_name", "total_time", "created_at", "peft_branch")},
            **{key: train[key] for key in train if key not in ("status", "metrics")},
            "peft_type": "full-finetuning" if run["peft_config"] is None else str(run["peft_config"]["peft_type"]),
            "test_accuracy": last["test accuracy"],
            "train_loss": last["train loss"],
            "forgetting*": last["forgetting"],
            "train_samples": last["train samples"],
            "train_total_tokens": last["train total tokens"],
            "task_name": "random tokens",
            "model_id": run["train_config"]["model_id"],
            "train_config": str(run["train_config"]),
            "peft_config": None if run["peft_config"] is None else f"r={run['peft_config'].get('r')}",
            "package_info": str(packages),
            "system_info": str(meta["system_info"]),
            **{f"{package}_version": packages[f"{package}-version"] for package in _PACKAGES},
        }
        rows.append([cells[column] for column in COLUMNS])
    return {"columns": list(COLUMNS), "rows": rows}
