"""Averaged reward models: the probe, where training starts from it, and the average."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from dpa.config.trainer import ScheduleConfig
from dpa.errors import InputError
from dpa.methods.reward_soup import interpolate
from dpa.models import ModelRef
from dpa.reward.load import load_scorer
from dpa.reward.train import LABEL_SCALE, RewardTraining, collate
from dpa.reward.warm import fit_probe, ingredient, load_probe, save_probe
from dpa.training.trainer import TrainingJob, run_training
from tests.support.tiny_models import make_causal_lm
from tests.support.training_jobs import training
from tests.unit.reward.test_train import ATTRIBUTES, make_rating

SCHEDULE = ScheduleConfig(
    learning_rate=1e-3, epochs=1, batch_size=8, warmup_steps=1, lr_scheduler="linear", max_length=64
)
#: Each attribute is rated in a part of the rows, as of several data sets.
RATINGS = [
    make_rating(i, **({"quality": float(i % 90)} if i % 3 else {"length": float(3 * i % 100)}))
    for i in range(48)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return ModelRef(make_causal_lm(tmp_path_factory.mktemp("base") / "base"))


def reward_training(base, output, head=None, number=1) -> RewardTraining:
    rate, dropout = ingredient(number)
    schedule = SCHEDULE.model_copy(update={"learning_rate": rate * SCHEDULE.learning_rate})
    job = TrainingJob(base, output, training(per_device_batch_size=4), schedule, seed=number)
    return RewardTraining(
        job, RATINGS, attributes=ATTRIBUTES, lm_loss_weight=0.1, token_dropout=0.0,
        head_dropout=dropout, head=head,
    )  # fmt: skip


def probe_of(made: RewardTraining, batch_size=4):
    pad = made.tokenizer.pad_token_id
    return fit_probe(made.make_learner(), made.rows, pad, batch_size, bf16=False)


@pytest.fixture(scope="module")
def fitted(base, tmp_path_factory):
    made = reward_training(base, tmp_path_factory.mktemp("probe") / "model")
    return made, probe_of(made)


def test_the_probe_is_least_squares_on_what_is_labelled(fitted):
    made, head = fitted
    learner = made.make_learner().eval()
    batch = collate(made.rows, made.tokenizer.pad_token_id)
    with torch.no_grad():
        features = learner.features(batch["input_ids"], batch["lengths"]).double().numpy()
    targets = batch["targets"].double().numpy()
    for k in range(len(ATTRIBUTES)):
        own = ~np.isnan(targets[:, k])
        assert 0 < own.sum() < len(own)
        squares = features[own].T @ features[own]
        strength = 1e-3 * np.diag(squares).mean()
        expected = np.linalg.solve(
            squares + strength * np.eye(len(squares)), features[own].T @ targets[own, k]
        )
        np.testing.assert_allclose(head[k].double().numpy(), expected, rtol=1e-3, atol=1e-3)
        error = np.abs(features[own] @ head[k].double().numpy() - targets[own, k]).mean()
        assert error < np.abs(targets[own, k]).mean() / 1.5  # a zeroed head's


def test_the_probe_does_not_depend_on_batches(fitted):
    made, head = fitted
    torch.testing.assert_close(probe_of(made, 7), head, rtol=1e-3, atol=1e-2)


def test_an_output_without_labels_keeps_a_zeroed_head(base, tmp_path):
    job = TrainingJob(base, tmp_path / "m", training(per_device_batch_size=4), SCHEDULE, seed=0)
    made = RewardTraining(
        job, RATINGS, attributes=[*ATTRIBUTES, "style"], lm_loss_weight=0.0, token_dropout=0.0
    )
    head = probe_of(made)
    assert head[2].abs().max() == 0
    assert head[:2].abs().max() > 0


def test_ingredients_differ_in_rate_and_dropout():
    made = [ingredient(number) for number in range(1, 10)]
    assert len(set(made)) == 9
    for one, other in pairwise(made):
        assert one.rate != other.rate
    assert len({some.dropout for some in made[:3]}) == 3
    assert ingredient(10) == ingredient(1)


def test_training_starts_from_the_probe(fitted, base, tmp_path):
    _, head = fitted
    save_probe(head, tmp_path / "probe.safetensors")
    made = reward_training(base, tmp_path / "model", load_probe(tmp_path / "probe.safetensors"))
    weight = made.make_learner().classifier.score.weight
    torch.testing.assert_close(weight.detach() * LABEL_SCALE, head)
    plain = reward_training(base, tmp_path / "model")
    assert made.fingerprint() != plain.fingerprint()
    with pytest.raises(InputError, match="rerun probe_reward_model"):
        reward_training(base, tmp_path / "model", head[:1]).make_learner()
    (tmp_path / "broken").write_bytes(b"no probe")
    with pytest.raises(InputError, match=r"broken: .*; rerun probe_reward_model"):
        load_probe(tmp_path / "broken")


def test_the_average_is_an_ordinary_reward_model(fitted, base, tmp_path):
    _, head = fitted
    folders = [tmp_path / f"member{n}" for n in (1, 2)]
    for number, folder in enumerate(folders, 1):
        run_training(reward_training(base, folder, head, number))
    interpolate(folders, [0.5, 0.5], tmp_path / "average")
    weights = [load_file(f / "model.safetensors") for f in (*folders, tmp_path / "average")]
    for name, averaged in weights[2].items():
        torch.testing.assert_close(averaged, (weights[0][name] + weights[1][name]) / 2)
    assert not torch.equal(weights[0]["score.weight"], weights[1]["score.weight"])
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "average")
    assert list(plain.config.id2label.values()) == ATTRIBUTES
    scores = [
        next(load_scorer(str(f), tokens_per_batch=512).score_groups([("The otter", ["It swims."])]))
        for f in (*folders, tmp_path / "average")
    ]
    assert np.isfinite(scores).all()
    # Near what its ingredients say: they have not gone far from where they started.
    assert np.abs(scores[2] - (scores[0] + scores[1]) / 2).max() < 5
