"""The result file says what the certificates say, and the figures draw it."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest

from analysis.certificates.coverage import coverage_table
from analysis.certificates.results import COLUMNS, write_certificate_results
from analysis.commands.main import main
from analysis.plots import plot_bound_against_bits, plot_certificates, plot_code_parts
from analysis.records import read_json
from theory.certificates import occam_bound


def _certificate(method, errors):
    parts = {"choices": 20.0, "adapter numbers": 55.5, "rounding to bytes": 4.5}
    return {
        "task": {"name": "toy"},
        "choice": {"method": method, "levels": 2, "seed": 0},
        "data": {"num_examples": 1000},
        "code": {"numbers": 50, "bits": 80, "bits_by_part": parts},
        "delta": 0.05,
        "empirical": {"errors": errors, "error": errors / 1000},
        "bound": occam_bound(errors / 1000, bits=80, num_examples=1000, delta=0.05).value,
        "bounds": {"cross_entropy": {"bound": 1.1}},
        "heldout": {"error": 0.21, "low": 0.15, "high": 0.29},
        "majority_error": 0.7,
        "full_precision": {"bound": 0.4},
    }


@pytest.fixture
def folder(tmp_path):
    for method, errors in (("cla", 200), ("lora", 180)):
        (tmp_path / f"toy-{method}.json").write_text(json.dumps(_certificate(method, errors)))
    return tmp_path


def test_the_result_file_repeats_the_certificates(folder, capsys):
    output = folder / "out" / "certificates.json"
    assert main(["certificates", "--folder", str(folder), "--output", str(output), "--experiments", "100"]) == 0
    assert "certified_error" in capsys.readouterr().out
    result = read_json(output)
    assert str(folder) not in json.dumps(result)
    table = result["tables"]["certificates"]
    assert table["columns"] == list(COLUMNS)
    assert [row[1] for row in table["rows"]] == ["cla", "lora"]
    assert result["values"]["toy/cla/certified_error"] == _certificate("cla", 200)["bound"]
    for row in result["tables"]["code_bits"]["rows"]:
        assert sum(row[2:-1]) == row[-1] == 80
    for row in result["tables"]["what_would_help"]["rows"]:
        assert all(better < row[2] for better in row[3:])


def test_an_empty_folder_or_a_foreign_record_is_refused(tmp_path, capsys):
    assert main(["certificates", "--folder", str(tmp_path)]) == 2
    assert "holds no certificate" in capsys.readouterr().err
    (tmp_path / "foreign.json").write_text("{}")
    with pytest.raises(ValueError, match="lacks"):
        write_certificate_results([tmp_path / "foreign.json"], tmp_path / "out.json")
    with pytest.raises(ValueError, match="at least one"):
        write_certificate_results([], tmp_path / "out.json")


def test_simulated_certificates_keep_their_word_and_are_not_vacuous():
    table = coverage_table(experiments=2000, delta=0.1, seed=5)
    # Three standard deviations of a binomial rate: 3 sqrt(0.09 / 2000) = 0.02.
    assert (table["violation_rate"] <= 0.1 + 0.02).all()
    assert table["bound_over_truth"].between(1.0, 1.7).all()
    assert len(table) == 8
    with pytest.raises(ValueError, match="experiments"):
        coverage_table(experiments=10)


def test_figures_draw_every_certificate():
    certificates = [_certificate("cla", 200), _certificate("asym", 250)]
    bars = plot_certificates(certificates)
    heights = [patch.get_height() for patch in bars.patches]
    np.testing.assert_allclose(heights, [c["bound"] for c in certificates])
    parts = plot_code_parts(certificates)
    assert sum(patch.get_width() for patch in parts.patches) == pytest.approx(160)
    curves = plot_bound_against_bits(num_examples=[100, 1000], most_bits=500)
    assert len(curves.lines) == 3
    plt.close("all")
    for draw in (plot_certificates, plot_code_parts):
        with pytest.raises(ValueError, match="at least one"):
            draw([])
