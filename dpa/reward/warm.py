"""Weight-averaged reward models (WARM: Ramé et al., arXiv 2401.12187).

Several reward models start from one head, a linear probe on the base model's frozen backbone, and
are trained in other orders, with other dropout and learning rates; their weights are averaged. Only
models that started alike stay near enough to be averaged. The values below are ours.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dpa.artefacts.outputs import atomic
from dpa.errors import InputError
from dpa.reward.train import LABEL_SCALE, RatedRow, RewardLearner, collate
from dpa.runtime.log import Progress

#: An ingredient's learning rate, times the schedule's; and dropout before its head.
RATES = (1.0, 0.5, 2.0)
DROPOUTS = (0.0, 0.05, 0.1)
#: Of the probe's ridge regression, as a share of the features' mean square.
RIDGE = 1e-3
#: The tensor in the probe's file: (outputs, width), for labels on 0-100.
HEAD = "score.weight"


class Ingredient(NamedTuple):
    """How a model that goes into the average is trained."""

    rate: float
    dropout: float


def ingredient(number: int) -> Ingredient:
    """Of ingredient 1, 2, ...: nine are all different, and neighbours in both.

    >>> ingredient(1), ingredient(2)
    (Ingredient(rate=1.0, dropout=0.0), Ingredient(rate=0.5, dropout=0.05))
    """
    turn, i = divmod(number - 1, len(RATES))
    return Ingredient(RATES[i], DROPOUTS[(i + turn) % len(DROPOUTS)])


@torch.no_grad()
def fit_probe(
    learner: RewardLearner, rows: Iterable[RatedRow], pad_id: int, batch_size: int, *, bf16: bool
) -> Tensor:
    """(outputs, width) weights of the head that predicts the rows' labels best from the untrained
    backbone: ridge regression, for each output over the rows that are labelled with it; zeros where
    none is.
    """
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    device = next(learner.parameters()).device
    outputs, width = learner.classifier.score.weight.shape
    squares = torch.zeros(outputs, width, width, dtype=torch.float64, device=device)
    products = torch.zeros(outputs, width, dtype=torch.float64, device=device)
    learner.eval()
    progress = Progress(len(ordered), "ratings")
    for start in range(0, len(ordered), batch_size):
        some = ordered[start : start + batch_size]
        batch = collate(some, pad_id)
        ids, lengths, targets = (
            batch[name].to(device) for name in ("input_ids", "lengths", "targets")
        )
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            features = learner.features(ids, lengths)
        features, targets = features.double(), targets.double() / LABEL_SCALE
        for k in range(outputs):
            labelled = ~targets[:, k].isnan()
            own = features[labelled]
            squares[k] += own.T @ own
            products[k] += targets[labelled, k] @ own
        progress.advance(len(some))
    strength = RIDGE * squares.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-12)
    squares.diagonal(dim1=1, dim2=2).add_(strength[:, None])
    return (LABEL_SCALE * torch.linalg.solve(squares, products)).float().cpu()


def save_probe(head: Tensor, path: Path) -> None:
    """The probe's file."""
    with atomic(path) as partial:
        save_file({HEAD: head.contiguous()}, partial)


def load_probe(path: Path) -> Tensor:
    """Weights of a head that `save_probe` saved. Raises InputError for another file."""
    try:
        with safe_open(path, framework="pt") as tensors:
            return tensors.get_tensor(HEAD)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: {error}; rerun probe_reward_model") from None
