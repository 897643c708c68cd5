from analysis.tasks import DATASETS, load_task


def test_the_data_set_is_read(tmp_path):
    lines = [f"{'even' if text.split().count('one') % 2 == 0 else 'odd'} {text}" for text in ("one", "one one", "two")]
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).write_text("\n".join(lines * 4))
    task = load_task("parity", data=tmp_path, model="tiny:bert")
    assert DATASETS["parity"].title == "Parity"
    assert task.label_names == ("even", "odd")
    assert (len(task.train), task.metric_name) == (12, "accuracy")
