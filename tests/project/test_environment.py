"""environment.yml, pyproject.toml and requirements.lock say the same."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
FILE = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = FILE["project"]


def _locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().split()
    pairs = [re.fullmatch(r"([A-Za-z0-9._-]+)==([^=\s]+)", line) for line in lines]
    assert all(pairs), "every line of the lock pins one version"
    return {canonicalize_name(pair[1]): pair[2] for pair in pairs if pair}


def test_every_requirement_of_the_project_is_pinned_inside_its_range():
    locked = _locked()
    wanted = [
        *FILE["build-system"]["requires"],
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["dev"],
        *PROJECT["optional-dependencies"]["dask"],
    ]
    for text in wanted:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name == PROJECT["name"]:
            continue
        assert name in locked, f"{name} is not in requirements.lock"
        assert requirement.specifier.contains(Version(locked[name])), f"{name} {locked[name]} is outside {text}"


def test_the_version_comes_from_the_tags_and_from_a_fallback_where_there_are_none():
    assert PROJECT["dynamic"] == ["version"]
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    fallback = Version(FILE["tool"]["setuptools_scm"]["fallback_version"])
    assert fallback.is_devrelease
    assert all(Version(version) < fallback for version in released)


def test_torch_is_pinned_to_the_release_with_a_cpu_build():
    assert _locked()["torch"] == "2.13.0"


def test_peers_that_ask_for_torchvision_are_installed_without_their_dependencies():
    """A torchvision for another torch breaks ``import peft``, so no extra may pull one in."""
    bare = re.findall(r"--no-deps (.+==.+)$", (ROOT / "Makefile").read_text(), re.M)
    names = {canonicalize_name(Requirement(text).name) for line in bare for text in line.split()}
    assert names == {"curvlinops-for-pytorch", "backpack-for-pytorch"}
    wanted = [Requirement(text).name for extra in PROJECT["optional-dependencies"].values() for text in extra]
    assert not {canonicalize_name(name) for name in wanted} & {*names, "torchvision"}


def test_conda_users_get_the_lock_and_the_project():
    text = (ROOT / "environment.yml").read_text()
    assert re.search(rf"^name: {PROJECT['name']}$", text, re.M)
    assert re.search(r"^  - python=3\.11$", text, re.M)
    assert re.findall(r"^      - (.+)$", text, re.M) == ["-r requirements.lock", "-e ."]
    assert PROJECT["requires-python"] == ">=3.11"


def _constraints(end: str) -> dict[str, str]:
    command = [sys.executable, ROOT / "tests" / "environment" / "constraints.py", end]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_the_oldest_set_holds_every_runtime_dependency_at_its_lower_bound():
    oldest = _constraints("oldest")
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dask"]]:
        requirement = Requirement(text)
        assert str(requirement.specifier) == f">={oldest[canonicalize_name(requirement.name)]}"


def test_the_newest_set_holds_torch_alone_at_the_release_with_a_cpu_build():
    assert _constraints("newest") == {"torch": _locked()["torch"]}


def test_an_unknown_end_of_the_ranges_is_refused():
    command = [sys.executable, ROOT / "tests" / "environment" / "constraints.py", "middle"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "end is 'middle'; oldest or newest is accepted" in done.stderr


def test_a_wheel_carries_every_file_that_the_packages_read():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package, globs in patterns.items():
        carried = {path for pattern in globs for path in (ROOT / package).glob(pattern)}
        there = {path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        assert {path for path in there if path.suffix != ".py"} == carried
