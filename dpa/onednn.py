"""Linear layers on a CPU through oneDNN, with weights laid out once for its kernels.

torch multiplies float32 with MKL, which takes its slower kernels on AMD's processors. What that
gains: benchmarks/measure_scoring.py, where there is nothing to share. The operators are those of
torch's own compiler (inductor).
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def use_onednn(model: nn.Module) -> None:
    """Have the model's linear layers, for inference alone, use oneDNN: in float32, on a CPU.

    The weights are moved into oneDNN's layout: the model can then no longer be trained or saved.
    """
    if not torch.backends.mkldnn.is_available():
        return
    for layer in model.modules():
        # Not of a class derived from it (adapters, quantised weights): those compute otherwise.
        if type(layer) is nn.Linear and _suits(layer.weight):
            weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None)
            bias = None if layer.bias is None else layer.bias.detach()
            layer.forward = partial(_linear, weight, bias)  # type: ignore[method-assign]
            layer.weight.data = torch.empty(0)


def _suits(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype is torch.float32


def _linear(weight: Tensor, bias: Tensor | None, states: Any) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
