"""Anybody can check the committed certificates: the digits' from the package alone, on any processor."""

from pathlib import Path

import pytest

from analysis.commands.main import main
from analysis.records import read_json

FOLDER = Path(__file__).resolve().parents[3] / "report" / "results" / "certificates"


ELSEWHERE = ("cla", "lora")  # the head drawn alone, and A beside it; other processors verify these in the gate


@pytest.mark.parametrize(
    "method",
    [pytest.param(key, marks=[pytest.mark.committed] if key in ELSEWHERE else []) for key in ("asym", "cla", "lora")],
)
def test_a_committed_digits_certificate_is_accepted(method, capsys):
    assert main(["verify", str(FOLDER / f"digits-{method}.json"), "--num-train", "700"]) == 0, capsys.readouterr().out
    assert "ACCEPTED" in capsys.readouterr().out


def test_rounding_is_measured_and_paid_for_in_every_committed_certificate():
    files = sorted(FOLDER.glob("*.json"))
    assert len(files) == 6
    for certificate in map(read_json, files):
        assert certificate["empirical"]["slack"] >= certificate["rounding"]["near_ties"]
        # What rounding moves is far below what a wrong model would: the verdict cannot hide in the tolerance.
        assert 0 < certificate["rounding"]["loss_reach"] < 1e-3
        assert certificate["rounding"]["near_ties"] <= 0.002 * certificate["data"]["num_examples"]
