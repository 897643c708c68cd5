"""What the report's text says in words, which no key fills in, is what the committed results say, and by a margin."""

from pathlib import Path

import pytest

from analysis.records import frame_of, read_json

REPORT = Path(__file__).resolve().parents[2] / "report"
TEXT = (REPORT / "main.typ").read_text(encoding="utf-8")


def claim(name):
    frame = frame_of(read_json(REPORT / "results" / f"{name}.json")["tables"]["claim"])
    # an end within the six digits that are kept could lie on either side of zero
    ends = frame[["low", "high"]].abs().min(axis=1)
    assert (ends > 1e-5 * frame[["low", "high"]].abs().max(axis=1)).all()
    return frame


def test_no_chain_is_sharper():
    assert "in none of the sixteen rows does the interval lie above zero" in TEXT
    frame = claim("landscape")
    assert len(frame) == 16
    assert not (frame["low"] > 0).any()
    assert not (frame["verdict"] == "larger").any()


@pytest.mark.parametrize(
    ("task", "measure", "verdict"),
    [
        ("digits", "authors", "larger"),
        ("digits", "paper", "larger"),
        ("trec", "paper", "larger"),
        ("trec", "authors", "smaller"),
        ("trec", "authors_per_direction", "smaller"),
        ("trec", "paper_per_direction", "smaller"),
    ],
)
def test_chains_have_more_or_fewer_intruders_as_the_text_says_at_both_checkpoints(task, measure, verdict):
    assert "On TREC it depends on the convention" in TEXT
    frame = claim("spectra")
    rows = frame[(frame["task"] == task) & (frame["measure"] == measure)]
    assert sorted(rows["checkpoint"]) == ["best", "last"]
    assert set(rows["verdict"]) == {verdict}
    assert ((rows["low"] > 0) == (verdict == "larger")).all()
    assert ((rows["high"] < 0) == (verdict == "smaller")).all()


def test_every_comparison_of_the_claim_is_undecided_and_hardly_any_could_have_been_otherwise():
    assert "All six comparisons are undecided" in TEXT
    assert "nothing is decided, and little could have been" in TEXT
    result = read_json(REPORT / "results" / "agreement.json")
    verdicts = {key: value for key, value in result["values"].items() if key.endswith("/verdict")}
    assert len(verdicts) == 6
    assert set(verdicts.values()) == {"undecided"}
    assert not [key for key in result["values"] if key.endswith("/detectable")]
    for name, table in result["tables"].items():
        if name.startswith("differences/"):
            rows = frame_of(table)
            assert (rows["p_rival_holm"] > 0.025).all()
            assert (rows["p_champion"] > 0.025).any()
        if name.startswith("rates/"):
            assert 1 - frame_of(table)["undecided"].iloc[0] <= 0.05
