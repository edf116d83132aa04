"""The smallest Triton kernel. Triton reads its source, so it has a file of its own."""

import torch
import triton
import triton.language as tl


@triton.jit
def _add(a, b, out, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    tl.store(out + at, tl.load(a + at, mask=inside) + tl.load(b + at, mask=inside), mask=inside)


def add(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a + b, both of one dimension on the card."""
    out = torch.empty_like(a)
    _add[(triton.cdiv(a.numel(), 1024),)](a, b, out, a.numel(), BLOCK=1024)
    return out
