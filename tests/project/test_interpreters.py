"""make finds a Python that can make the environment, and says what it looked for where there is none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELL = shutil.which("sh")
MAKE = shutil.which("make")


def _fake(folder: Path, name: str, version: str | None = None, lacks: str | None = None) -> Path:
    """A stand-in for Python ``version`` without the module ``lacks``; without a version one that does not run."""
    path = folder / name
    if version is None:
        path.write_text(f"#!{SHELL}\necho 'pyenv: {name}: command not found' >&2\nexit 127\n")
    else:
        sham = f"import sys; sys.version_info = ({version.replace('.', ', ')}, 0); sys.modules[{lacks!r}] = None"
        path.write_text(f'#!{SHELL}\nshift\ncode=$1\nshift\nexec "{sys.executable}" -c "{sham}\n$code" "$@"\n')
    path.chmod(0o755)
    return path


def _find(what: str, *folders: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PATH": os.pathsep.join(map(str, folders))}
    command = [SHELL, ROOT / "tests" / "environment" / "find_python.sh", what]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_newest_or_the_oldest_supported_python_is_found(tmp_path):
    for version in ("3.11", "3.12", "3.13", "3.14"):
        _fake(tmp_path, f"python{version}", version)
    assert _find("newest", tmp_path).stdout.strip() == str(tmp_path / "python3.13")
    assert _find("oldest", tmp_path).stdout.strip() == str(tmp_path / "python3.11")


def test_a_python_that_does_not_run_or_makes_no_environments_is_passed_over(tmp_path):
    shims, system = tmp_path / "shims", tmp_path / "system with a space"
    shims.mkdir()
    system.mkdir()
    for name in ("python3.13", "python3.12", "python3.11"):
        _fake(shims, name)
    _fake(system, "python3.13", "3.13", lacks="ensurepip")
    _fake(system, "python3.11", "3.11")
    found = _find("newest", shims, system)
    assert (found.returncode, found.stdout.strip(), found.stderr) == (0, str(system / "python3.11"), "")
    expected = _fake(system, "python3.12", "3.12")
    assert _find("newest", shims, system).stdout.strip() == str(expected)


@pytest.mark.parametrize(("version", "fits"), [("3.10", False), ("3.11", True), ("3.13", True), ("3.14", False)])
def test_plain_python3_is_taken_where_its_version_is_supported(tmp_path, version, fits):
    path = _fake(tmp_path, "python3", version)
    found = _find("newest", tmp_path)
    assert found.returncode == (0 if fits else 2)
    assert found.stdout.strip() == (str(path) if fits else "")


def test_where_none_will_do_one_line_says_what_was_looked_for_and_found(tmp_path):
    broken = _fake(tmp_path, "python3.13")
    bare = _fake(tmp_path, "python3.12", "3.12", lacks="ensurepip")
    old = _fake(tmp_path, "python3", "3.10")
    found = _find("newest", tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == (
        "make: looked for python3.13 python3.12 python3.11 python3; "
        f"{broken} does not run, {bare} has no ensurepip, {old} is 3.10; "
        "give a Python from 3.11 on with PYTHON=...\n"
    )


def test_a_named_python_is_taken_from_3_11_on_and_nothing_else_in_its_place(tmp_path):
    _fake(tmp_path, "python3.12", "3.12")
    _fake(tmp_path, "python3.14", "3.14")
    _fake(tmp_path, "python3.10", "3.10")
    assert _find("python3.14", tmp_path).stdout == "python3.14\n"
    for name, fault in (("python3.10", "is 3.10"), ("python3.9", "not found")):
        found = _find(name, tmp_path)
        assert (found.returncode, found.stdout) == (2, "")
        assert found.stderr == f"make: PYTHON={name} {fault}; give a Python from 3.11 on with PYTHON=...\n"


@pytest.mark.skipif(MAKE is None, reason="make is not installed")
def test_make_install_stops_with_that_line_and_exit_2(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "tests" / "environment", tmp_path / "tests" / "environment")
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to(SHELL)
    unset = ("PYTHON", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment["PATH"] = str(tmp_path / "bin")
    done = subprocess.run([MAKE, "install"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "make: looked for python3.13 python3.12 python3.11 python3; none is in PATH; give a Python" in done.stderr
    assert not (tmp_path / ".venv").exists()
