"""Constraints for pip at both ends of the ranges in pyproject.toml: ``constraints.py oldest|newest`` prints them.

``oldest`` holds every runtime dependency (Dask's too) at its lower bound and the test tools at the lock's releases;
``newest`` holds torch alone, at the lock's release, the last one with a CPU build.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def lines(end: str) -> list[str]:
    """The constraints of one end of the ranges.

    Args:
        end: "oldest" or "newest".

    Returns:
        Lines ``name==version``.

    Raises:
        ValueError: ``end`` is neither, or a dependency has no lower bound to test.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().split())
    if end == "newest":
        return [f"torch=={locked['torch']}"]
    if end != "oldest":
        raise ValueError(f"end is {end!r}; oldest or newest is accepted")
    extras = project["optional-dependencies"]
    held = []
    for requirement in project["dependencies"] + extras["dask"]:
        bound = re.fullmatch(r"([A-Za-z0-9._-]+)>=([0-9.]+)", requirement)
        if bound is None:
            raise ValueError(f"{requirement!r} in pyproject.toml; name>=version alone is accepted")
        held.append(f"{bound[1]}=={bound[2]}")
    tools = [requirement.split(">=")[0] for requirement in extras["dev"]]
    return held + [f"{name}=={locked[name]}" for name in tools if name in locked]


if __name__ == "__main__":
    print("\n".join(lines(*sys.argv[1:])))
