"""What a package outside adds appears everywhere, and its author needs the guides alone.

`tests/plugin` is such a package: DoRA as a twelfth method, a bound, a sharpness, a data set. It is installed into a
folder of its own, which processes started here see and others do not.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests" / "plugin"
GUIDES = (
    "theory/ADD_A_METHOD.md",
    "theory/ADD_A_BOUND.md",
    "analysis/measures/ADD_A_MEASURE.md",
    "analysis/tasks/ADD_A_DATA_SET.md",
)
PYTEST = """[pytest]
addopts = --import-mode=importlib
filterwarnings =
    error
    ignore:.*is_gradient_checkpointing.*:FutureWarning
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Install the package for the processes of this module."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, folder / "source")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    install += ["--no-deps", "--no-build-isolation", "--target", str(folder / "site"), str(folder / "source")]
    subprocess.run(install, check=True, cwd=folder)
    return folder


def python(site, *words):
    path = os.pathsep.join([str(site / "site"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], check=False, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def blocks():
    """Every code block of the guides: the file that it names, and its text."""
    for guide in GUIDES:
        for text in re.findall(r"```(?:python|toml)\n(.*?)```", (ROOT / guide).read_text(), re.S):
            first, _, rest = text.partition("\n")
            yield (first.removeprefix("# "), rest) if first.startswith("# ") else ("pyproject.toml", text)


def test_the_guides_hold_every_line_of_the_package():
    files = {str(path.relative_to(PLUGIN)) for path in PLUGIN.rglob("*.py")} - {"dora_plugin/__init__.py"}
    shown = list(blocks())
    assert files == {name for name, _ in shown} - {"pyproject.toml"}
    for name, text in shown:
        written = (PLUGIN / name).read_text()
        assert text.strip() in written if name == "pyproject.toml" else text == written, name
    assert sum(name == "pyproject.toml" for name, _ in shown) == 4


@pytest.mark.slow
def test_its_own_tests_inherit_the_shipped_checks_and_pass(site):
    (site / "pytest.ini").write_text(PYTEST)
    words = ["-m", "pytest", "-q", "-p", "no:nbmake", "-p", "no:cacheprovider", "-c", str(site / "pytest.ini")]
    said = python(site, *words, "--rootdir", str(site / "source"), str(site / "source"))
    assert int(re.search(r"(\d+) passed", said)[1]) >= 28


@pytest.mark.slow
def test_what_it_adds_appears_in_tables_figures_commands_and_the_report(site, tmp_path):
    (tmp_path / "results").mkdir()
    assert python(site, "tests/project/appears.py", str(tmp_path)).endswith("appears\n")


def test_the_command_line_names_what_it_adds(site):
    assert "dora" in python(site, "-m", "analysis", "run", "--help")
    assert "parity" in python(site, "-m", "analysis", "bounds", "--help")
    assert "wide" in python(site, "-m", "analysis", "measure", "--help")
    said = python(site, "-m", "analysis", "bounds", "--method", "dora", "--data-set", "parity")
    assert "gauge-and-lengths" in said
    assert "n = 64" in said


def test_nothing_of_it_is_seen_where_it_is_not_installed():
    assert "dora" not in subprocess.run(
        [sys.executable, "-c", "import theory; print(list(theory.METHODS))"],
        check=True, cwd=ROOT, capture_output=True, text=True,
    ).stdout  # fmt: skip
