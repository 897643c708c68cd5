"""Run PEFT's own test classes against this project's tuner: ``python tests/conformance/run.py``.

The source distribution of the installed PEFT version carries its tests; it is fetched once with pip, unpacked into a
cache folder and never committed. ``suite/`` points its test classes at `adapters.ColumnConfig` and at tiny random
models made on the spot, so that nothing is fetched from a model hub. Prints passed, failed, skipped and left out, with
the reason of each; exit status 1 if anything failed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOKENS = {"vocab_size": 1100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def fetch(cache: Path, peft_version: str) -> Path:
    """Return the folder of the unpacked source distribution, fetching it if it is not there."""
    folder = cache / f"peft-{peft_version}"
    if not (folder / "tests").is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        words = ["--no-binary", "peft", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
        command = [sys.executable, "-m", "pip", "download", *words, "--dest", str(cache), f"peft=={peft_version}"]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"conformance: peft=={peft_version} could not be fetched; a package index is needed once")
        with tarfile.open(cache / f"peft-{peft_version}.tar.gz") as archive:
            archive.extractall(cache, filter="data")
    return folder


def make_models(folder: Path) -> None:
    """Save tiny random models under the names that PEFT's tests look for."""
    import torch
    import transformers as t

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    made = {
        "tiny-random-LlamaForCausalLM": lambda: t.LlamaForCausalLM(t.LlamaConfig(**small, **TOKENS)),
        "tiny-random-OPTForCausalLM": lambda: t.OPTForCausalLM(
            t.OPTConfig(
                hidden_size=16, num_hidden_layers=2, num_attention_heads=4, ffn_dim=32, word_embed_proj_dim=16,
                max_position_embeddings=64, **TOKENS,
            )
        ),
        "tiny-random-GPT2LMHeadModel": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(n_embd=16, n_layer=2, n_head=4, n_positions=64, **TOKENS)
        ),
        "tiny-random-BertModel": lambda: t.BertModel(t.BertConfig(**small, **TOKENS)),
        "tiny-random-RobertaModel": lambda: t.RobertaModel(t.RobertaConfig(**small, **TOKENS)),
        "tiny-random-DebertaV2Model": lambda: t.DebertaV2Model(t.DebertaV2Config(**small, **TOKENS)),
        "tiny-random-BertForSequenceClassification": lambda: t.BertForSequenceClassification(
            t.BertConfig(**small, **TOKENS)
        ),
        "tiny-LlamaForSequenceClassification": lambda: t.LlamaForSequenceClassification(
            t.LlamaConfig(**small, **TOKENS)
        ),
        "tiny-random-T5ForConditionalGeneration": lambda: t.T5ForConditionalGeneration(
            t.T5Config(
                d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, decoder_start_token_id=0, vocab_size=1100
            )
        ),
        "tiny-random-BartForConditionalGeneration": lambda: t.BartForConditionalGeneration(
            t.BartConfig(
                d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
                encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64, **TOKENS,
            )
        ),
    }  # fmt: skip
    for name, build in made.items():
        if not (folder / name / "config.json").exists():
            torch.manual_seed(0)
            build().save_pretrained(folder / name)


def run(cache: Path, *, jobs: int, select: str | None) -> tuple[int, Path]:
    """Run the suites in the unpacked copy; return pytest's exit status and its report."""
    source = fetch(cache, version("peft"))
    make_models(cache / "models")
    suite = cache / "suite"
    shutil.rmtree(suite, ignore_errors=True)
    shutil.copytree(HERE / "suite", suite)
    (suite / "pytest.ini").write_text("[pytest]\npython_files = column_*.py\n")
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(source), str(suite), str(ROOT)]),
        "CONFORMANCE_MODELS": str(cache / "models"),
        "CONFORMANCE_LEFT_OUT": str(cache / "left_out.json"),
    }
    report = cache / "report.xml"
    words = [
        "-c",
        str(suite / "pytest.ini"),
        "--rootdir",
        str(suite),
        "-p",
        "no:cacheprovider",
        "-p",
        "selection",
        "-q",
        "-W",
        "ignore",
    ]
    words += ["-n", str(jobs), "--tb=short", "--no-header", f"--junitxml={report}", "--import-mode=importlib"]
    command = [sys.executable, "-m", "pytest", *words, *(["-k", select] if select else []), str(suite)]
    return subprocess.run(command, env=environment, cwd=suite, check=False).returncode, report


def summarise(report: Path, left_out: dict[str, str]) -> dict[str, object]:
    """Count the outcomes of a report by suite, with the reason of every test that did not run."""
    counts: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {"skipped": Counter(), "failed": Counter()}
    suites: dict[str, Counter[str]] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        skipped, failure = case.find("skipped"), case.find("failure")
        failure = case.find("error") if failure is None else failure
        outcome = "skipped" if skipped is not None else "failed" if failure is not None else "passed"
        counts[outcome] += 1
        suites.setdefault(case.get("classname", "").split(".")[-1], Counter())[outcome] += 1
        if skipped is not None:
            reasons["skipped"][skipped.get("message", "")] += 1
        elif failure is not None:
            first = (failure.get("message") or "").strip().splitlines()
            reasons["failed"][f"{case.get('name')}: {first[0] if first else ''}"] += 1
    return {
        "passed": counts["passed"],
        "failed": counts["failed"],
        "skipped": counts["skipped"],
        "left out": len(left_out),
        "by suite": {name: dict(outcomes) for name, outcomes in sorted(suites.items())},
        "failures": dict(reasons["failed"]),
        "reasons of skips": dict(reasons["skipped"].most_common()),
        "reasons of tests left out": left_out,
    }


def _write(path: Path, summary: dict) -> None:
    from analysis.records import provenance, write_result

    counts = {key: summary[key] for key in ("peft", "passed", "failed", "skipped", "left out")}
    suites = [
        [name, *(row.get(key, 0) for key in ("passed", "skipped", "failed"))]
        for name, row in summary["by suite"].items()
    ]
    why = [
        [kind, reason, count]
        for kind, rows in (
            ("skipped", summary["reasons of skips"]),
            ("left out", Counter(summary["reasons of tests left out"].values())),
        )
        for reason, count in rows.items()
    ]
    write_result(
        path,
        provenance=provenance("python tests/conformance/run.py --results report/results/conformance.json"),
        values={key.replace(" ", "_"): value for key, value in counts.items()},
        tables={
            "suites": {"columns": ["suite", "passed", "skipped", "failed"], "rows": suites},
            "reasons": {"columns": ["what", "reason", "tests"], "rows": why},
        },
    )


def main() -> int:
    """Fetch, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cache", type=Path, default=ROOT / ".cache" / "conformance", help="where the copy is unpacked"
    )
    parser.add_argument("--jobs", type=int, default=2, help="pytest-xdist workers (default: %(default)s)")
    parser.add_argument("--select", help="pytest's -k expression")
    parser.add_argument("--results", type=Path, help="write the counts there as a result file")
    args = parser.parse_args()
    cache = args.cache.resolve()
    left_out_path = cache / "left_out.json"
    left_out_path.unlink(missing_ok=True)
    status, report = run(cache, jobs=args.jobs, select=args.select)
    if not report.exists():
        return status or 1
    left_out = json.loads(left_out_path.read_text()) if left_out_path.exists() else {}
    summary = {"peft": version("peft"), **summarise(report, left_out)}
    print(json.dumps(summary, indent=1))
    if args.results is not None:
        _write(args.results, summary)
    return 1 if summary["failed"] or status not in (0, 1) else 0


if __name__ == "__main__":
    raise SystemExit(main())
