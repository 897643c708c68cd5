"""The eleven methods of arXiv:2606.13767 on torch, as PEFT users expect them; importing registers the tuner."""

from adapters.chain import ChainCallback, current_link, last_checkpoint, merge_and_continue
from adapters.config import ColumnConfig
from adapters.describe import LayerFactors, delta_weights, describe, factors
from adapters.export import export_to_lora, load_adapter, save_adapter
from adapters.model import ColumnModel
from adapters.prepare import Prepared, prepare
from adapters.targets import in_layers, target_names
from adapters.updates import WeightUpdate, updates

__all__ = [
    "ChainCallback",
    "ColumnConfig",
    "ColumnModel",
    "LayerFactors",
    "Prepared",
    "WeightUpdate",
    "current_link",
    "delta_weights",
    "describe",
    "export_to_lora",
    "factors",
    "in_layers",
    "last_checkpoint",
    "load_adapter",
    "merge_and_continue",
    "prepare",
    "save_adapter",
    "target_names",
    "updates",
]
