"""Train tiny chains in processes that are killed with SIGKILL, and resume them in new ones.

Called as ``worker_chain.py FOLDER``; every run happens in a forked child of a parent that has trained nothing,
so that a kill loses all state but the files. The parent has built one model, so that its children need not read what
transformers and PEFT read for the first one, and its objects are none of the children's garbage. Final weights go to
``FOLDER/<method>/<name>.safetensors``.
"""

import gc
import os
import signal
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Trainer, TrainerCallback, TrainingArguments, ViTConfig, ViTForImageClassification

from adapters import last_checkpoint, prepare

METHODS = ("c3la", "r-c3la", "cola", "rac")
# Ten steps, three links that start at steps 0, 4 and 7; a checkpoint every two steps.
KILLS = {
    "inside_a_link": ("on_step_end", 5),
    "after_moving_before_saving": ("on_step_end", 4),
    "between_links": ("on_step_begin", 4),
    "in_the_middle_of_saving": ("on_save", 6),
}


class Kill(TrainerCallback):
    """End this process at once at one event of one step."""

    def __init__(self, event, step):
        setattr(self, event, lambda args, state, control, **_: kill() if state.global_step == step else None)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


class Images(torch.utils.data.Dataset):
    def __init__(self):
        g = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(24, 3, 8, 8, generator=g), torch.randint(3, (24,), generator=g)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"pixel_values": self.x[i], "labels": self.y[i]}


def build(method):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    images = {"image_size": 8, "patch_size": 4, "num_labels": 3, "hidden_dropout_prob": 0.1}
    model = ViTForImageClassification(ViTConfig(**sizes, **images))
    return prepare(model, method, rank=3, links=3, learning_rate=1e-2, seed=2)


def train(method, folder, *, before=(), after=(), resume=None):
    prepared = build(method)
    arguments = TrainingArguments(
        str(folder), max_steps=10, per_device_train_batch_size=4, save_steps=2, logging_steps=2, report_to=[],
        use_cpu=True, disable_tqdm=True, seed=1, warmup_steps=2,
    )  # fmt: skip
    trainer = Trainer(
        model=prepared.model, args=arguments, train_dataset=Images(), optimizers=(prepared.create_optimizer(), None),
        callbacks=[*before, *prepared.callbacks, *after],
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    return prepared.model


def run(method, root, name, event):
    folder = root / method / name
    if event is not None:
        killer = [Kill(*event)]
        early = event[0] == "on_save"
        status = in_child(lambda: train(method, folder, **{"before" if early else "after": killer}))
        assert os.WIFSIGNALED(status), status
        assert os.WTERMSIG(status) == signal.SIGKILL
    resume = last_checkpoint(folder)
    (root / method).mkdir(exist_ok=True, parents=True)
    (root / method / f"{name}.txt").write_text(Path(resume).name if resume else "none")

    def finish():
        model = train(method, folder, resume=resume)
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, root / method / f"{name}.safetensors")

    assert in_child(finish) == 0


def in_child(work):
    pid = os.fork()
    if pid == 0:
        warnings.simplefilter("ignore")
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 1)
        work()
        os._exit(0)
    return os.waitpid(pid, 0)[1]


if __name__ == "__main__":
    build(METHODS[0])
    gc.collect()
    gc.freeze()
    for chosen in METHODS:
        run(chosen, Path(sys.argv[1]), "uninterrupted", None)
        for label, moment in KILLS.items():
            run(chosen, Path(sys.argv[1]), label, moment)
