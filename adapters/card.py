"""What a saved adapter says of itself, to whoever opens its folder without this package."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["write_card"]

_START, _END = "<!-- beyond-lora: start -->", "<!-- beyond-lora: end -->"
_TEXT = """{start}
## How to load this adapter

{what}

PEFT by itself ends in `KeyError: '{kind}'`: it needs the package `beyond-lora` installed and its module `adapters`
imported first (AdapterHub's package of the same import name is another one).

```python
import adapters  # registers the tuner with PEFT
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "PATH_OF_THIS_FOLDER")
```

Whoever should load it without `beyond-lora` gets a plain LoRA adapter of the same function, exact in its factors:

```python
adapters.export_to_lora(model, "lora")  # then, in PEFT alone: PeftModel.from_pretrained(base_model, "lora")
```

`adapters.save_adapter(model, folder, lora_twin=True)` writes both. If a folder `lora` stands beside this file, it is
that plain LoRA adapter.
{end}
"""


def write_card(folder: str | os.PathLike, *, kind: str, what: str) -> None:
    """Put a section on loading into the folder's ``README.md``, in place of an earlier one; the rest of it stays.

    Args:
        folder: the adapter's folder.
        kind: PEFT's name of the tuner.
        what: a sentence on what the adapter is.
    """
    path = Path(folder) / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    text = re.sub(rf"{re.escape(_START)}.*?{re.escape(_END)}\n*", "", text, flags=re.S)
    metadata = re.match(r"---\n.*?\n---\n", text, flags=re.S)
    split = metadata.end() if metadata else 0
    section = _TEXT.format(start=_START, end=_END, kind=kind, what=what)
    path.write_text(text[:split] + ("\n" if split else "") + section + text[split:], encoding="utf-8")
