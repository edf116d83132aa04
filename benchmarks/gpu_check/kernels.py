"""Part 1: a large product, a copy, and attention over rows packed of documents."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu_check.rows import device, is_small, on_gpu, product_rate, record, seconds_of

TOKENS, DOCUMENTS = (64, 3) if is_small() else (8192, 15)
HEADS, KV_HEADS, WIDTH = (4, 2, 16) if is_small() else (32, 8, 128)


def main() -> None:
    rate = product_rate(256 if is_small() else 8192)
    record("square bfloat16 product" if on_gpu() else "square product", rate / 1e12, "TFLOP/s")
    record("copy, read and written", copy_rate() / 1e9, "GB/s")
    attention()


def copy_rate() -> float:
    """Bytes a second of a copy on the device, read and written."""
    source = torch.empty(2**20 if is_small() else 2**31, dtype=torch.uint8, device=device())
    copy = torch.empty_like(source)
    return 2 * source.numel() / seconds_of(lambda: copy.copy_(source), 10)


def attention() -> None:
    """Forward and backward of one layer's attention."""
    torch.manual_seed(0)
    ends = torch.linspace(0, TOKENS, DOCUMENTS + 1, device=device()).int()
    owner = torch.bucketize(torch.arange(TOKENS, device=device()), ends[1:], right=True)
    mask = (owner[:, None] == owner) & torch.ones_like(owner[:, None] == owner).tril()
    longest = int((ends[1:] - ends[:-1]).max())

    def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)

    def varlen(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        q, k, v = (x[0].transpose(0, 1) for x in (q, k, v))
        out = varlen_attn(
            q, k, v, ends, ends, longest, longest, window_size=(-1, 0), enable_gqa=True
        )
        assert isinstance(out, Tensor)
        return out.transpose(0, 1)[None]

    sides: dict[str, Callable[..., Tensor]] = {"causal over all": causal, "masked": masked}
    if on_gpu():
        sides["varlen"] = varlen
    seconds, outputs = {}, {}
    for name, side in sides.items():
        inputs = [
            torch.randn(
                *(1, heads, TOKENS, WIDTH),
                device=device(),
                dtype=torch.bfloat16 if on_gpu() else torch.float32,
                generator=torch.Generator(device()).manual_seed(heads),
            ).requires_grad_()
            for heads in (HEADS, KV_HEADS, KV_HEADS)
        ]
        outputs[name] = side(*inputs).detach()
        seconds[name] = seconds_of(lambda side=side, x=inputs: side(*x).sum().backward(), 5)
        record(f"attention, {name}: forward and backward", 1000 * seconds[name], "ms")
    if on_gpu():
        record(
            "attention, varlen: time, over masked",
            seconds["varlen"] / seconds["masked"],
            at_most=0.2,
        )
        difference = (outputs["varlen"] - outputs["masked"]).abs().max()
        record("attention, varlen: largest difference", float(difference), at_most=0.02)


if __name__ == "__main__":
    main()
