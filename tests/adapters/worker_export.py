"""Load exported adapters with vanilla PEFT; this process must never import the adapters package."""

import json
import sys
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file

if __name__ == "__main__":
    root = Path(sys.argv[1])
    for case in sorted(path for path in root.iterdir() if path.is_dir()):
        cls = getattr(transformers, json.loads((case / "base" / "config.json").read_text())["architectures"][0])
        model = PeftModel.from_pretrained(cls.from_pretrained(case / "base"), case / "lora").eval()
        with torch.no_grad():
            logits = model(**load_file(case / "inputs.safetensors")).logits
            merged = model.merge_and_unload()(**load_file(case / "inputs.safetensors")).logits
        save_file({"logits": logits, "merged": merged}, case / "vanilla.safetensors")
    assert not any(name.split(".")[0] == "adapters" for name in sys.modules)
