"""New weights by seed and name, the same bits on every processor."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from theory.draws import draw_normal

__all__ = ["redraw"]


def redraw(model: torch.nn.Module, names: Iterable[str], *, seed: int) -> None:
    """Draw new weights by seed and name, so that they are the same bits on every processor.

    What transformers drew at random is drawn again, normal with the configuration's ``initializer_range`` (0.02 where
    it has none, transformers' own default); what it set to a constant (biases, norms) stays.

    Args:
        model: a transformers model.
        names: of its parameters that no checkpoint gave; others are passed over.
        seed: of the draw.
    """
    config = getattr(model.config, "get_text_config", lambda: model.config)()
    std = getattr(model.config, "initializer_range", None) or getattr(config, "initializer_range", None) or 0.02
    parameters = dict(model.named_parameters())
    for name in names:
        parameter = parameters.get(name)
        if parameter is None or parameter.numel() == 0 or bool((parameter == parameter.reshape(-1)[0]).all()):
            continue
        drawn = draw_normal(*parameter.shape, key=f"{seed}/{name}", std=float(std))
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(drawn))
