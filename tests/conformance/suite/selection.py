"""Keep the tests that are about a tuner's configuration, ours; stand in for what PEFT's helpers only import."""

import json
import os
import sys
import types
from pathlib import Path

import pytest

from adapters import ColumnConfig

NEEDS_HUB = "fetches a configuration from the hub"
LEFT_OUT = dict.fromkeys(
    ("test_from_pretrained", "test_from_pretrained_cache_dir", "test_save_pretrained_with_runtime_config"), NEEDS_HUB
)


def pytest_configure():
    """PEFT's common tester imports diffusers for its Stable Diffusion class alone."""
    try:
        import diffusers  # noqa: F401
    except ImportError:
        stand_in = types.ModuleType("diffusers")
        stand_in.StableDiffusionPipeline = type("StableDiffusionPipeline", (), {})
        sys.modules["diffusers"] = stand_in


def _about_columns(item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    return ColumnConfig in (params.get("config_cls"), params.get("config_class"))


def pytest_collection_modifyitems(config, items):
    """Drop the other tuners' own tests; leave out, with its reason, what cannot apply."""
    kept, left_out = [], {}
    for item in items:
        if not _about_columns(item):
            continue
        reason = LEFT_OUT.get(item.originalname)
        if reason is None:
            kept.append(item)
        else:
            left_out[item.name] = reason
    items[:] = kept
    path = Path(os.environ["CONFORMANCE_LEFT_OUT"])
    if not hasattr(config, "workerinput") or config.workerinput["workerid"] == "gw0":
        path.write_text(json.dumps(left_out))
