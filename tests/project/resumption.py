"""Is a run that was killed and started again the run that was never stopped? ``python tests/project/resumption.py``.

Options are combined in a covering array: every value of every option meets every value of every other one in some run.
Each run is made once in one go, and once with kills (SIGKILL to a process of its own) at steps and amid the writing of
checkpoints, all drawn by seed. Records have to agree in everything but times and memory, weights to the last bit.
Writes report/results/resume.json; exit status 1 if anything differs. ``tests/analysis/runs/test_resuming.py`` holds a
few of the runs in every ``make test``, and all of them in ``make test-full``.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from analysis.records import provenance, read_json, write_result
from analysis.runs import RunConfig, run
from analysis.runs.trainer import WatchedTrainer
from theory.methods import METHODS, get_method

ROOT = Path(__file__).resolve().parents[2]

AXES: dict[str, tuple[Any, ...]] = {
    "method": tuple(METHODS),
    "data": ("digits", "text", "pairs", "scores", "choices", "completions"),
    "lr_scheduler": ("linear", "cosine", "constant", "constant_with_warmup"),
    "checkpoint_every": (1, 2, 5),
    "epochs": (1.5, 2.0, 3.0),
    "rank": (1, 2),
    "alpha": (None, 3.0),
    "links": (None, 2),
    "seed": (0, 1),
    "batch_size": (8, 9),
    "learning_rate": (None, 0.02),
    "head_learning_rate": (None, 0.005),
    "weight_decay": (None, 0.0),
    "lr_ratio": (None, 4.0),
    "chain_schedule": ("run", "link"),
    "warmup": (0.0, 0.3),
    "max_grad_norm": (1.0, 0.1),
    "precision": ("fp32", "bf16"),
    "gradient_checkpointing": (False, True),
    "target_modules": (None, "one"),
    "select": ("last", "best"),
    "selection_share": (0.1, 0.5),
    "save_adapter": (False, True),
    "save_checkpoints": (0, 3),
    "num_train": (32, 40),
    "num_heldout": (12, 15),
    "max_length": (None, 8),
}
"""Every option that a run can be given, and the values that it takes here; half precision needs another device."""

ELSEWHERE = {
    *("task", "model", "kind", "text", "text_pair", "label", "choices", "heldout_share"),  # as the data asks
    *("encoding", "separator", "quoting", "missing", "strict", "label_range", "stratify"),  # over before training
    *("model_name", "settings", "options"),  # names of what other options hold
    *("layers", "packing", "generate", "split"),  # of some kinds of data alone, or after training: test_resuming.py
}
"""Options that the array leaves out."""

_SENTENCE = "how far is the river from town who wrote this short poem what does a quark weigh when did it rain"
_MODELS = {
    "text": ("tiny:bert", "text-classification", "query"),
    "pairs": ("tiny:deberta-v3-base", "text-classification", "query_proj"),
    "scores": ("tiny:roberta-base", "regression", "query"),
    "choices": ("tiny:bert", "multiple-choice", "value"),
    "completions": ("tiny:gpt2-small", "causal-lm", "c_attn"),
}


def covering_array(axes: Mapping[str, Sequence[Any]], *, seed: int = 0, tries: int = 5) -> Iterator[dict[str, Any]]:
    """Yield rows in which every pair of values of every two axes occurs: greedy, each row the best of some draws."""
    draw = random.Random(seed)
    names = list(axes)
    missing = set(pairs_of(axes))
    while missing:
        best: tuple[set, dict[str, Any]] = (set(), {})
        for _ in range(tries):
            (first, one), (second, two) = draw.choice(sorted(missing, key=repr))
            row = {first: one, second: two}
            for name in draw.sample(names, len(names)):
                if name not in row:
                    chosen = [(_met({**row, name: value}, missing), draw.random(), value) for value in axes[name]]
                    row[name] = max(chosen, key=lambda item: item[:2])[2]
            met = set(_pairs(row)) & missing
            best = max(best, (met, row), key=lambda item: len(item[0]))
        missing -= best[0]
        yield {name: best[1][name] for name in names}


def pairs_of(axes: Mapping[str, Sequence[Any]]) -> Iterator[tuple]:
    """Yield every pair of values of two axes, as ((name, value), (name, value)) in the order of the axes' names."""
    for first, second in itertools.combinations(sorted(axes), 2):
        yield from (((first, one), (second, two)) for one in axes[first] for two in axes[second])


def _pairs(row: Mapping[str, Any]) -> Iterator[tuple]:
    return itertools.combinations(sorted(row.items(), key=lambda item: item[0]), 2)


def _met(row: Mapping[str, Any], missing: set) -> int:
    return sum(pair in missing for pair in _pairs(row))


def write_data(folder: Path) -> None:
    """Write a small invented data set of each kind, in texts of many lengths."""
    draw, words = random.Random(0), _SENTENCE.split()

    def text(label: int) -> str:
        return " ".join(draw.choices(words[4 * label : 4 * label + 8], k=draw.randint(2, 14)))

    makers: dict[str, Callable[[int], dict[str, Any]]] = {
        "text": lambda label: {"text": text(label), "label": f"class {label}"},
        "pairs": lambda label: {"text": text(label), "other": text(label), "label": f"class {label}"},
        "scores": lambda label: {"text": text(label), "other": text(0), "label": label + draw.random()},
        "choices": lambda label: {"text": text(label), "a": text(0), "b": text(1), "c": text(2), "label": label},
        "completions": lambda label: {"text": text(label), "label": text(label)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in makers.items():
        rows = [json.dumps(make(draw.randrange(3))) for _ in range(60)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def config_of(row: Mapping[str, Any], data: Path) -> RunConfig:
    """Return a row's configuration; an option that its method does not take is left out."""
    values, kind = {**row}, row["data"]
    method = get_method(row["method"])
    if not method.chained:
        values["links"] = None
    if method.trains != "both":
        values["lr_ratio"] = None
    values["task"], values["data"] = "digits", None
    one = "q_proj"
    if kind != "digits":
        model, task_kind, one = _MODELS[kind]
        values |= {"task": "custom", "data": str(data / f"{kind}.jsonl"), "model": model, "kind": task_kind}
        values |= {"text": "text", "label": "label", "heldout_share": 0.25}
        values |= {"text_pair": "other"} if kind in ("pairs", "scores") else {}
        values |= {"choices": ("a", "b", "c")} if kind == "choices" else {}
    values["target_modules"] = (one,) if row["target_modules"] else None
    values["gradient_checkpointing"] = row["gradient_checkpointing"]
    return RunConfig.from_mapping(values)


class Killed(BaseException):
    """Stands for SIGKILL where a test has no process to spare: nothing but ``finally`` runs on it."""


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def raise_killed() -> None:
    """End the run as far as one process can."""
    raise Killed


def draw_kill(draw: random.Random) -> dict[str, int]:
    """Draw where a run dies: before its n-th step, or at the n-th call within the writing of its k-th checkpoint."""
    if draw.random() < 0.5:
        return {"step": draw.randint(1, 9)}
    return {"checkpoint": draw.randint(1, 3), "call": int(10 ** draw.uniform(0, 4.3))}


def attempt(config: RunConfig, folder: Path, kill: Mapping[str, int], *, end: Callable[[], None] = _die) -> None:
    """Run, and call ``end`` where ``kill`` says; a run that is over before is recorded."""
    step, save = WatchedTrainer.training_step, WatchedTrainer._maybe_log_save_evaluate
    count = {"step": 0, "checkpoint": 0, "call": 0}

    def stepping(self: WatchedTrainer, *args: Any, **kwargs: Any) -> Any:
        count["step"] += 1
        if count["step"] == kill.get("step"):
            end()
        return step(self, *args, **kwargs)

    def counting(frame: Any, event: str, argument: Any) -> None:
        count["call"] += 1
        if count["call"] == kill["call"]:
            sys.setprofile(None)
            end()

    def saving(self: WatchedTrainer, *args: Any, **kwargs: Any) -> None:
        count["checkpoint"] += self.control.should_save
        dies = self.control.should_save and count["checkpoint"] == kill.get("checkpoint")
        sys.setprofile(counting if dies else None)
        try:
            save(self, *args, **kwargs)
        finally:
            sys.setprofile(None)
        if dies:
            end()  # all of it was written in fewer calls

    WatchedTrainer.training_step, WatchedTrainer._maybe_log_save_evaluate = stepping, saving  # type: ignore[method-assign]
    try:
        run(config, folder=folder)
    finally:
        WatchedTrainer.training_step, WatchedTrainer._maybe_log_save_evaluate = step, save  # type: ignore[method-assign]


_TIMES = ("train_seconds", "total_seconds", "seconds_per_step", "peak_memory_bytes", "peak_memory_kind", "resumed_from")


def differences(config: RunConfig, whole: Path, cut: Path) -> list[str]:
    """Name what differs between two folders of one run: leaves of the record but times and memory, and weights."""
    found = []
    records = [read_json(folder / config.key() / "record.json") for folder in (whole, cut)]
    for record in records:
        for name in _TIMES:
            record["timing"].pop(name)
        record["provenance"].pop("date")
    leaves = [dict(_leaves(record)) for record in records]
    for name in sorted(leaves[0].keys() | leaves[1].keys()):
        if leaves[0].get(name) != leaves[1].get(name):
            found.append(f"{name}: {leaves[0].get(name)} became {leaves[1].get(name)}")
    files = [_weights(folder / config.key()) for folder in (whole, cut)]
    if files[0].keys() != files[1].keys():
        found.append(f"files: {sorted(files[0])} became {sorted(files[1])}")
    for name in sorted(files[0].keys() & files[1].keys()):
        one, two = (load_file(file[name]) for file in files)
        if one.keys() != two.keys() or not all((one[key] == two[key]).all() for key in one):
            found.append(f"weights of {name}")
    return found


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(item, f"{name}/{key}")
    else:
        yield name, value


def _weights(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.safetensors")}


def _child(values: dict[str, Any], folder: str, kill: dict[str, int], errors: str) -> None:
    with Path(errors).open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        attempt(RunConfig.from_mapping(values), Path(folder), kill)


def main() -> int:
    """Make every run of the array, whole and killed, and write what was counted."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=2, help="most kills of one run (default: %(default)s)")
    parser.add_argument("--rows", type=int, help="only the first rows of the array; nothing is written")
    args = parser.parse_args()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["analysis.runs.finetune", "analysis.runs.trainer"])
    rows = list(covering_array(AXES))
    counts = {"option_pairs": len(set(pairs_of(AXES))), "runs": 0, "kills_at_steps": 0, "kills_amid_checkpoints": 0}
    wrong: list[list[str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        write_data(home / "data")
        for number, row in enumerate(rows[: args.rows]):
            config, draw = config_of(row, home / "data"), random.Random(number)
            values = {**config.__dict__}

            def once(folder: str, kill: dict[str, int], values: dict = values) -> int:
                process = context.Process(target=_child, args=(values, str(home / folder), kill, str(home / "errors")))
                process.start()
                process.join()
                return process.exitcode or 0

            codes = [once("whole", {})]
            for _ in range(args.kills):
                kill = draw_kill(draw)
                codes.append(once("cut", kill))
                counts["kills_at_steps" if "step" in kill else "kills_amid_checkpoints"] += codes[-1] == -signal.SIGKILL
            codes.append(once("cut", {}))
            if set(codes) - {0, -signal.SIGKILL} or codes[0] or codes[-1]:
                raise SystemExit(f"run {number}, {config.command()}: {(home / 'errors').read_text()[-2000:]}")
            counts["runs"] += 1
            wrong += [[config.command(), line] for line in differences(config, home / "whole", home / "cut")]
            print(f"{number + 1} of {len(rows)}: {counts}, {len(wrong)} differences", flush=True)
    for command, line in wrong:
        print(f"{command}\n  {line}")
    if args.rows is None:
        made = provenance(f"python tests/project/resumption.py --kills {args.kills}", seeds=[0, 1])
        tables = {"differences": {"columns": ["command", "difference"], "rows": wrong}}
        values = {**counts, "options": len(AXES), "differences": len(wrong)}
        write_result(ROOT / "report" / "results" / "resume.json", provenance=made, values=values, tables=tables)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
