"""In which floating-point type checkpoints sample and score."""

from typing import Any

import torch


def computing_dtype(config: Any) -> torch.dtype:
    """The type in which a checkpoint computes here, given its config.json.

    bfloat16 on a GPU. On a CPU float32, but bfloat16 where the weights are stored in it, and so
    lose nothing, and the processor multiplies in it: that takes a half to a third of the time.
    """
    if torch.cuda.is_available():
        return torch.bfloat16
    stored = config.dtype
    multiplies = torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.bfloat16 if stored == torch.bfloat16 and multiplies else torch.float32
