"""A job's work is known before weights are loaded, and its texts become tokens once."""

import pytest
from transformers import AutoConfig, AutoTokenizer

from dpa.reward.inputs import RewardInputs
from dpa.reward.load import load_scorer
from tests.support.tiny_models import ARCHITECTURES, WORDS, make_reward_model


def groups_around(limit: int) -> list:
    """Responses of one token more and one fewer than the next, and some that are far from it."""
    lengths = [0, 1, 5, *range(limit - 40, limit + 10), 3 * limit]
    answers = [" ".join(WORDS[i % len(WORDS)] for i in range(length)) for length in lengths]
    odd = ["é" * limit, "▁" * limit, " " * (2 * limit), "\ufb03" * limit, "日本" * (limit // 3)]
    return [("Tell me.", [*answers, *odd, answers[3]]), ("Go on.", answers[::2])]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_survey_counts_what_scoring_truncates(name, tmp_path):
    model = load_scorer(make_reward_model(tmp_path, name), tokens_per_batch=10**5)
    groups = groups_around(min(model.max_length, 120))
    model.inputs.max_length = model.max_length = min(model.max_length, 120)
    survey = model.inputs.survey(groups, sum(len(answers) for _, answers in groups))
    model.score_chunk(groups)
    assert survey == (model.scored, model.truncated)
    assert 10 < survey.truncated < survey.inputs - 10


def test_a_survey_tokenises_only_what_may_be_too_long(tmp_path, monkeypatch):
    folder = make_reward_model(tmp_path)
    inputs = RewardInputs(AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder))
    tokenised: list[str] = []
    real = RewardInputs._ids
    monkeypatch.setattr(
        RewardInputs, "_ids", lambda self, texts: real(self, tokenised.extend(texts) or texts)
    )
    survey = inputs.survey([("Hi", ["otter", "river", "otter " * 10_000])], 3)
    assert survey == (3, 1)
    assert len(tokenised) == 1
