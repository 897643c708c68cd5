"""Rows that share a text belong together: in intervals, and on one side of a split."""

import dataclasses

import pytest

from analysis.tasks import DataOptions, load_task
from analysis.tasks.clusters import redrawn, text_clusters
from analysis.tasks.task import RawTask


def rows(*texts: str) -> list[dict]:
    return [{"text": text, "label": str(i % 2)} for i, text in enumerate(texts)]


def test_references_of_one_meaning_are_one_cluster_and_single_texts_their_own():
    assert text_clusters(rows("a", "b", "a", "c", "b")) == (0, 1, 0, 2, 1)
    assert text_clusters(rows("a", "b", "c")) is None


def test_pairs_are_linked_through_either_sentence():
    pairs = [("a", "b"), ("c", "d"), ("b", "e"), ("f", "c"), ("g", "h")]
    assert text_clusters([{"text": one, "text_pair": two} for one, two in pairs]) == (0, 1, 0, 1, 2)


def test_an_instruction_that_all_share_links_nothing_and_neither_does_an_empty_text():
    assert text_clusters([{"text": "Classify:", "text_pair": word} for word in "abc"]) is None
    assert text_clusters([{"text": word, "text_pair": ""} for word in "abc"]) is None
    assert text_clusters([{"image": 1}, {"image": 2}]) is None


def test_a_new_split_has_the_published_size_keeps_clusters_whole_and_loses_no_row():
    texts = [f"text {i // 3}" for i in range(60)]
    raw = RawTask(
        kind="text-classification", train=rows(*texts[:45]), heldout=rows(*texts[45:]), metric_name="accuracy"
    )
    drawn = [redrawn(raw, seed=seed) for seed in range(3)]
    for one in drawn:
        assert len(one.heldout) == 15
        assert sorted(row["text"] for row in [*one.train, *one.heldout]) == sorted(texts)
        assert not {row["text"] for row in one.train} & {row["text"] for row in one.heldout}
        assert "15 of 60 rows held out by seed, 20 clusters" in one.notes[-1]
    assert len({tuple(row["text"] for row in one.heldout) for one in drawn}) == 3
    assert redrawn(raw, seed=1).heldout == drawn[1].heldout
    whole = dataclasses.replace(raw, train=rows(*["a", "b"] * 9), heldout=rows("a", "b"))
    with pytest.raises(ValueError, match="2 clusters share texts"):
        redrawn(whole, seed=0)


def test_a_task_knows_its_held_out_clusters_and_draws_them_anew_by_seed(trec_folder, model_cache):
    def load(**options):
        return load_task("trec", data=trec_folder, model="tiny:bert", seed=options.pop("seed", 0),
                         options=DataOptions(max_length=16, **options))  # fmt: skip

    assert len(set(load().clusters)) == 4
    drawn = [load(split="seed", seed=seed) for seed in range(4)]
    # Each of the four questions is there nine times; one of them fits into a held-out set of twelve.
    assert [(len(task.train), len(task.heldout), task.overlap) for task in drawn] == [(27, 9, 0)] * 4
    assert len({tuple(task.heldout[0]["input_ids"]) for task in drawn}) > 1
    with pytest.raises(ValueError, match="split must be one of published, seed, got 'new'"):
        DataOptions(split="new")
    with pytest.raises(ValueError, match="cannot stratify"):
        DataOptions(split="seed", stratify=True)
