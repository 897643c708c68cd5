"""Losses of a few steps under DDP, FSDP1, FSDP2 or one process, across a link change for c3LA.

Called as ``worker_distributed.py FILE``; rank 0 of two processes (gloo) writes the losses there. Both are forked from
one that has imported everything and built one model, and have the environment that torchrun gives.
"""

import gc
import json
import os
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from adapters import merge_and_continue, prepare

# What each run is: how it is distributed, the method, and whether a chain moves on after the third step.
RUNS = {
    "ddp-cla": ("ddp", "cla"),
    "ddp-c3la": ("ddp", "c3la"),
    "ddp-rac": ("ddp", "rac"),
    "fsdp2-cla": ("fsdp2", "cla"),
    "fsdp2-c3la": ("fsdp2", "c3la"),
    "fsdp2-r-c3la": ("fsdp2", "r-c3la"),
    "fsdp1-cla": ("fsdp1", "cla"),
}
STEPS, BATCH = 6, 4


def build(method):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    tokens = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **tokens))
    links = 2 if method in ("c3la", "r-c3la", "rac") else 1
    return prepare(model, method, rank=3, alpha=6.0, links=links, learning_rate=1e-2, target_modules="all-linear")


def tokens():
    g = torch.Generator().manual_seed(1)
    return torch.randint(3, 40, (STEPS, BATCH, 8), generator=g)


def wrap(kind, prepared):
    model = prepared.model
    if kind == "ddp":
        return torch.nn.parallel.DistributedDataParallel(model)
    if kind == "fsdp2":
        from torch.distributed.fsdp import fully_shard

        for block in model.base_model.model.model.layers:
            fully_shard(block)
        return fully_shard(model)
    if kind == "fsdp1":
        from peft.utils.other import fsdp_auto_wrap_policy
        from torch.distributed.fsdp import FullyShardedDataParallel

        os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = "LlamaDecoderLayer"
        policy = fsdp_auto_wrap_policy(model)
        device = torch.device("cpu")
        return FullyShardedDataParallel(model, auto_wrap_policy=policy, use_orig_params=False, device_id=device)
    return model


def losses(kind, method, rank, world):
    prepared = build(method)
    model = wrap(kind, prepared)
    if kind == "fsdp1":  # parameters are flat now, and all trained ones have one rate
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    else:
        optimizer = prepared.create_optimizer()
    found = []
    for step, batch in enumerate(tokens()):
        share = batch.chunk(world)[rank]
        loss = model(input_ids=share, labels=share).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        value = loss.detach().clone()
        if world > 1:
            dist.all_reduce(value)
        found.append(value.item() / world)
        if step == 2 and prepared.method.chained:
            merge_and_continue(prepared.model, optimizer=optimizer)
    return found


def trainer_losses(world):
    """Losses of a Trainer that moves a c3LA chain on by its callback; the batch is split over the processes."""
    prepared = build("c3la")
    rows = [{"input_ids": row, "labels": row} for row in tokens().flatten(0, 1)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=STEPS, per_device_train_batch_size=BATCH // world, logging_steps=1, report_to=[],
            use_cpu=True, disable_tqdm=True, save_strategy="no", max_grad_norm=0.0,
            train_sampling_strategy="sequential",
        )  # fmt: skip
        trainer = Trainer(
            model=prepared.model, args=arguments, train_dataset=rows, callbacks=prepared.callbacks,
            optimizers=(prepared.create_optimizer(), None),
        )  # fmt: skip
        trainer.train()
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def work(file, rank, world):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # read, but not used: the processes meet in a file
    dist.init_process_group("gloo", init_method=f"file://{file}.meeting", rank=rank, world_size=world)
    results = {name: losses(kind, method, rank, world) for name, (kind, method) in RUNS.items()}
    results["trainer"] = trainer_losses(world)
    if rank == 0:
        Path(file).write_text(json.dumps(results))
    dist.destroy_process_group()


def start(file, world=2):
    """Fork the processes and wait for them; the first to fail takes the others with it, as under torchrun."""
    build("cla")
    gc.collect()
    gc.freeze()
    running = set()
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work(file, rank, world)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        running.add(pid)
    while running:
        pid, status = os.wait()
        running.remove(pid)
        if status:
            for other in running:
                os.kill(other, signal.SIGKILL)
            return 1
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(start(sys.argv[1]))
