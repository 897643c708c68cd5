"""Adapters against each other and against the frozen floor: seconds per step, bytes kept, arithmetic."""

from __future__ import annotations

import dataclasses
import gc
import statistics
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from tqdm import tqdm

from analysis.benchmarks import harness
from analysis.benchmarks.adapter_cases import (
    CASES,
    LLAMA_8B,
    LLAMA_CPU,
    LLAMA_QUICK,
    Setting,
    attach,
    base_model,
    batch,
)
from analysis.benchmarks.adapter_measure import Step, arithmetic, cuda_peak, operator_profile, saved_bytes
from analysis.benchmarks.method_comparison import comparison_record, comparison_table
from analysis.records import atomic_write_json

__all__ = ["grid", "measure", "measure_in_rounds", "merged_inference", "run"]

_COLUMNS = (
    "setting", "case", "trained", "seconds", "quartile_low", "quartile_high", "step_ratio", "arithmetic_ratio",
    "saved_bytes", "adapter_saved_bytes", "peak_bytes",
)  # fmt: skip
_GPU_CASES = ("floor", "lora", "lora-frozen-a", "miss", "naive-gather", "cla", "r-cla")


def grid(*, quick: bool = False) -> list[Setting]:
    """The settings measured on a CPU: targets x length x dtype, or one small setting per target."""
    if quick:
        return [dataclasses.replace(LLAMA_QUICK, targets=targets) for targets in ("all-linear", "q,v")]
    shapes = ((256, 8), (2048, 1))
    return [
        dataclasses.replace(LLAMA_CPU, targets=targets, length=length, sequences=sequences, dtype=dtype)
        for dtype, (length, sequences), targets in product(("float32", "bfloat16"), shapes, ("all-linear", "q,v"))
    ]


def measure(
    setting: Setting, *, cases: Sequence[str] = tuple(CASES), repeats: int = 7, progress: bool = True
) -> dict[str, dict[str, Any]]:
    """Measure every case of one setting in turn, in one process: the way for models that fit side by side.

    Args:
        setting: architecture, batch and targets.
        cases: keys of ``CASES``; ``"floor"`` must be among them.
        repeats: timed steps of each case, interleaved.
        progress: show a bar.

    Returns:
        case -> the harness' timing plus ``trained``, ``step_ratio`` (to the floor: median of ratios within a
        repeat), ``arithmetic_ratio``, ``saved_bytes``, ``adapter_saved_bytes`` (above the floor), ``peak_bytes``.

    Raises:
        ValueError: if the floor is not among the cases.
    """
    base, inputs = base_model(setting), batch(setting)
    steps = {key: Step(attach(base, key, setting), inputs) for key in cases}
    kept = {key: saved_bytes(step.model, inputs) for key, step in steps.items()}
    products = {key: arithmetic(step) for key, step in steps.items()}
    timed = harness.compare(
        steps,
        baseline="floor",
        repeats=repeats,
        warmup=2,
        clock=time.process_time if setting.device == "cpu" else time.perf_counter,
        after=None if setting.device == "cpu" else torch.cuda.synchronize,
        progress=setting.name if progress else None,
    )
    return {
        key: {
            **timed[key],
            "trained": steps[key].trained,
            "step_ratio": 1.0 / timed[key]["speedup"],
            "arithmetic_ratio": products[key] / products["floor"],
            "saved_bytes": kept[key],
            "adapter_saved_bytes": kept[key] - kept["floor"],
            "peak_bytes": cuda_peak(steps[key]),
        }
        for key in cases
    }


def measure_in_rounds(
    setting: Setting,
    *,
    cases: Sequence[str] = _GPU_CASES,
    rounds: int = 3,
    steps: int = 5,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """The same for models that fit one at a time: each round builds, measures and drops every case.

    Args:
        setting: architecture, batch and targets.
        cases: keys of ``CASES``; ``"floor"`` must be among them.
        rounds: rounds over all cases.
        steps: timed steps per case and round, after two that are not timed.
        progress: show a bar.

    Returns:
        As :func:`measure`; ``step_ratio`` is the median over rounds of the ratio to that round's floor.

    Raises:
        ValueError: if the floor is not among the cases.
    """
    if "floor" not in cases:
        raise ValueError(f"cases must hold 'floor', which the others are divided by; got {', '.join(cases)}")
    inputs = batch(setting)
    seconds: dict[str, list[float]] = {key: [] for key in cases}
    facts: dict[str, dict[str, Any]] = {}
    with tqdm(total=rounds * len(cases), desc=setting.name, disable=not progress) as bar:
        for turn in range(rounds):
            for key in cases if turn % 2 == 0 else tuple(reversed(cases)):
                step = Step(attach(base_model(setting), key, setting, copy_base=False), inputs)
                if key not in facts:
                    facts[key] = {
                        "trained": step.trained,
                        "saved_bytes": saved_bytes(step.model, inputs),
                        "flops": arithmetic(step),
                    }
                seconds[key].append(_time(step, steps=steps))
                facts[key]["peak_bytes"] = cuda_peak(step)
                del step
                gc.collect()
                bar.update()
    floor = facts["floor"]
    return {
        key: {
            "seconds": statistics.median(seconds[key]),
            "quartile_low": min(seconds[key]),
            "quartile_high": max(seconds[key]),
            "minimum": min(seconds[key]),
            "repeats": float(rounds),
            "speedup": statistics.median(f / s for f, s in zip(seconds["floor"], seconds[key], strict=True)),
            "trained": facts[key]["trained"],
            "step_ratio": statistics.median(s / f for f, s in zip(seconds["floor"], seconds[key], strict=True)),
            "arithmetic_ratio": facts[key]["flops"] / floor["flops"],
            "saved_bytes": facts[key]["saved_bytes"],
            "adapter_saved_bytes": facts[key]["saved_bytes"] - floor["saved_bytes"],
            "peak_bytes": facts[key]["peak_bytes"],
        }
        for key in cases
    }


def _time(step: Step, *, steps: int) -> float:
    """Median seconds of a step, after two that are not timed; the device is waited for."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    taken = []
    for turn in range(-2, steps):
        wait()
        start = time.perf_counter()
        step()
        wait()
        if turn >= 0:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def merged_inference(setting: Setting, *, repeats: int = 7, progress: bool = True) -> dict[str, dict[str, float]]:
    """Time a forward pass of the base, of cLA merged into it, and of cLA and LoRA left unmerged.

    Raises:
        RuntimeError: if the merged model is not the base's architecture, module by module.
    """
    base, inputs = base_model(setting), {"input_ids": batch(setting)["input_ids"]}
    models = {"base": base, "cla": attach(base, "cla", setting), "lora": attach(base, "lora", setting)}
    merged = cast(PeftModel, attach(base, "cla", setting)).merge_and_unload()
    kinds = [[type(module) for module in model.modules()] for model in (base, merged)]
    if kinds[0] != kinds[1]:
        raise RuntimeError("merge_and_unload left modules that the base does not have")
    models["cla-merged"] = merged

    def forward(model: torch.nn.Module) -> Any:
        with torch.no_grad():
            return model.eval()(**inputs)

    calls = {name: (lambda model=model: forward(model)) for name, model in models.items()}
    return harness.compare(calls, baseline="base", repeats=repeats, warmup=2, progress="merged" if progress else None)


def profile_difference(setting: Setting, *, steps: int = 5, rows: int = 14) -> dict[str, Any]:
    """Where cLA's step spends time that the floor does not: operators by the difference of their self times."""
    base, inputs = base_model(setting), batch(setting)
    taken = {}
    for key in ("floor", "cla", "lora"):
        step = Step(attach(base, key, setting), inputs)
        step()
        taken[key] = operator_profile(step, steps=steps)
    names = sorted(set().union(*taken.values()), key=lambda n: -abs(_ms(taken["cla"], n) - _ms(taken["floor"], n)))
    columns = ["operator", "floor_ms", "cla_ms", "lora_ms", "floor_calls", "cla_calls", "lora_calls"]
    table = [
        [name, *(_ms(taken[key], name) for key in taken), *(taken[key].get(name, (0.0, 0))[1] for key in taken)]
        for name in names[:rows]
    ]
    totals = ["total", *(sum(ms for ms, _ in operators.values()) for operators in taken.values()), 0, 0, 0]
    return {"columns": columns, "rows": [totals, *table]}


def _ms(operators: dict[str, tuple[float, int]], name: str) -> float:
    return round(operators.get(name, (0.0, 0))[0], 3)


def _values(results: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, cases in results.items():
        for key in cases.keys() & {"lora", "cla"}:
            values[f"{name}/{key}/step_ratio"] = cases[key]["step_ratio"]
        if "lora" in cases and "cla" in cases:
            lora, cla = cases["lora"], cases["cla"]
            values[f"{name}/saved_lora_over_cla"] = lora["adapter_saved_bytes"] / max(1, cla["adapter_saved_bytes"])
            values[f"{name}/step_cla_over_lora"] = cla["step_ratio"] / lora["step_ratio"]
            if lora["peak_bytes"]:
                values[f"{name}/peak_cla_over_lora"] = cla["peak_bytes"] / lora["peak_bytes"]
    return values


def run(
    *,
    results: str | Path | None = None,
    quick: bool = False,
    gpu: bool = False,
    repeats: int | None = None,
    export: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Run the whole benchmark and write its result file.

    Args:
        results: where to write; nothing is written when left out.
        quick: small models, few repeats: a trial whose numbers mean nothing.
        gpu: Llama-3-8B's shapes in bfloat16 on a CUDA device instead of the CPU grid.
        repeats: timed repeats (rounds on a GPU).
        export: folder for one JSON per case in the format of peft's ``method_comparison``.
        progress: show bars.

    Returns:
        ``values`` and ``tables`` as written.

    Raises:
        ValueError: if a GPU is asked for and there is none.
    """
    if gpu and not torch.cuda.is_available():
        raise ValueError("gpu asks for a CUDA device, and torch sees none; leave --gpu out to run on the CPU")
    repeats = repeats or (3 if quick or gpu else 9)
    if gpu:
        settings = [dataclasses.replace(LLAMA_8B, targets=targets) for targets in ("all-linear", "q,v")]
        found = {s.name: measure_in_rounds(s, rounds=repeats, progress=progress) for s in settings}
    else:
        settings = grid(quick=quick)
        found = {}
        for setting in tqdm(settings, desc="settings", disable=not progress):
            found[setting.name] = measure(setting, repeats=repeats, progress=progress)
    first = settings[0]
    values = _values(found)
    tables: dict[str, Any] = {
        "steps": {
            "columns": list(_COLUMNS),
            "rows": [
                [name, key, *(row[column] for column in _COLUMNS[2:])]
                for name, cases in found.items()
                for key, row in cases.items()
            ],
        },
        "targets": {"columns": ["target", "wanted"], "rows": [*map(list, harness.targets("adapters").items())]},
        "cases": {"columns": ["case", "title"], "rows": [[key, case.title] for key, case in CASES.items()]},
        "settings": {
            "columns": list(dataclasses.asdict(first)),
            "rows": [list(dataclasses.asdict(setting).values()) for setting in settings],
        },
    }
    if not gpu:
        merged = merged_inference(first, repeats=repeats, progress=progress)
        values |= {f"inference/{name}/ratio": 1.0 / row["speedup"] for name, row in merged.items()}
        tables["inference"] = harness.table({"inference": merged})
        tables["profile"] = profile_difference(first, steps=2 if quick else 5)
    records = [comparison_record(first, key, row, repeats=repeats) for key, row in found[first.name].items()]
    tables["method_comparison"] = comparison_table([record for record in records if record is not None])
    if export is not None:
        for record in (record for record in records if record is not None):
            atomic_write_json(Path(export) / f"{record['run_info']['experiment_name']}.json", record)
    if results is not None:
        flags = " ".join(["bench adapters", *(["--quick"] if quick else []), *(["--gpu"] if gpu else [])])
        harness.write(
            results,
            found,
            command=f"python -m analysis {flags} --repeats {repeats}",
            seeds=[0],
            values=values,
            tables=tables,
        )
    return {"values": values, "tables": tables}
