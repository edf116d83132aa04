"""Seeds derived from what they are for, so that no result depends on sharding or job order."""

import hashlib
import zlib

#: Sample i of a group uses seed + i (vLLM numbers its children so); groups are this far apart.
GROUP_SPACING = 1 << 16


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2**48), equal for equal parts and independent for different ones.

    >>> derive_seed(0, "split") == derive_seed(0, "split")
    True
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "big")


def sample_seed(base: int, iteration: int, prompt_id: str, direction: int, sample: int) -> int:
    """The seed of one sampled response, in [0, 2**63)."""
    group = derive_seed(base, "sample", iteration, prompt_id, direction) >> 1
    return group * GROUP_SPACING + sample


def short_seed(seed: int) -> int:
    """A sample's seed in 32 bits, for a generator that takes no more.

    Samples of one group keep different seeds: CRC-32 tells apart whatever differs in 32
    neighbouring bits only. Of n samples in all, n**2 / 2**33 pairs are expected to share one: 0.04
    among the 19,200 in an iteration of the quickstart (the low 32 bits coincide for thousands).
    """
    return zlib.crc32(seed.to_bytes(8, "big"))
