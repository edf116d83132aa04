"""What a part of the check records, and how it starts."""

import json
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import torch

#: Exit status of a part that has nothing to do on this machine.
SKIPPED = 3


def record(
    what: str,
    value: float | str,
    unit: str = "",
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    **more: Any,
) -> None:
    """Print a measurement, and whether it is as expected, as a line of JSON."""
    if not isinstance(value, str):
        value = float(f"{value:.4g}")
    row: dict[str, Any] = {"what": what, "value": value, "unit": unit, **more}
    if at_most is not None:
        row |= {"expected": f"at most {at_most}", "met": bool(float(value) <= at_most)}
    if at_least is not None:
        row |= {"expected": f"at least {at_least}", "met": bool(float(value) >= at_least)}
    print(json.dumps(row), flush=True)


def skip(why: str) -> NoReturn:
    """End a part that this machine cannot do."""
    print(why, file=sys.stderr)
    raise SystemExit(SKIPPED)


def on_gpu() -> bool:
    return torch.cuda.is_available()


def device() -> str:
    return "cuda" if on_gpu() else "cpu"


def synchronise() -> None:
    """Wait for the card."""
    if on_gpu():
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], repeats: int, warm_up: int = 2) -> float:
    """Median seconds of a call, the card's work included."""
    import time

    found = []
    for turn in range(warm_up + repeats):
        synchronise()
        start = time.perf_counter()
        work()
        synchronise()
        if turn >= warm_up:
            found.append(time.perf_counter() - start)
    return float(np.median(found))


def product_rate(size: int) -> float:
    """FLOP/s of a square bfloat16 product: what a card reaches when nothing holds it up."""
    kind = torch.bfloat16 if on_gpu() else torch.float32
    a, b = (torch.randn(size, size, device=device(), dtype=kind) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: a @ b, 10, 3)


def is_small() -> bool:
    """Whether the sizes are those of tests."""
    return "--small" in sys.argv[1:]
