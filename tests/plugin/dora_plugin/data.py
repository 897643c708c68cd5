"""Whether a line holds an even number of the word "one"."""

from analysis.tasks import Dataset


def read(folder):
    """Read ``train.txt`` and ``test.txt``: a label, a space, a text."""

    def rows(name):
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        return [dict(zip(("label", "text"), line.split(" ", 1), strict=True)) for line in lines]

    return {"train": rows("train.txt"), "heldout": rows("test.txt")}


PARITY = Dataset(
    name="parity",
    title="Parity",
    kind="text-classification",
    reader="dora_plugin.data:read",
    metric_name="accuracy",
    num_train=64,
    columns={"text": "text", "label": "label"},
)
