"""In which type a checkpoint samples and scores on a CPU: bfloat16 only where it is stored so."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from dpa.evaluation.preference_judge import PreferenceJudge
from dpa.generation.engine import Request
from dpa.generation.load import load_engine
from dpa.models import load_checkpoint_config
from dpa.precision import computing_dtype
from dpa.reward.load import load_scorer
from tests.support.tiny_models import make_reward_model

FLOAT, BFLOAT = torch.float32, torch.bfloat16
#: In the checkpoint, and whether the processor multiplies in it.
CASES = [(FLOAT, True, FLOAT), (BFLOAT, True, BFLOAT), (BFLOAT, False, FLOAT)]
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in bfloat16")


def stored(kind, path, folder, dtype):
    """A copy of a checkpoint's weights in a type."""
    kind.from_pretrained(path, dtype=dtype).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("dtype", "multiplies", "expected"), CASES)
def test_by_the_weights_and_the_processor(
    dtype, multiplies, expected, tiny_policy, tmp_path, monkeypatch
):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": multiplies})
    path = stored(AutoModelForCausalLM, tiny_policy, tmp_path / "policy", dtype)
    assert computing_dtype(load_checkpoint_config(path)) == expected


def test_a_policy_samples_in_its_type(tiny_policy, tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True})
    for dtype in (FLOAT, BFLOAT):
        path = stored(AutoModelForCausalLM, tiny_policy, tmp_path / str(dtype), dtype)
        tiny_tokenizer.save_pretrained(path)
        engine = load_engine(
            "transformers", path, temperature=1, max_new_tokens=20, max_model_len=100,
            rows_per_batch=8,
        )  # fmt: skip
        assert engine.model.dtype == dtype
        chunk = [Request(tiny_tokenizer("Describe the otter.")["input_ids"], [1, 2, 3])]
        first, second = (list(engine.generate([chunk])) for _ in range(2))
        assert first == second


def test_reward_models_and_judges_score_in_their_type(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True})
    path = make_reward_model(tmp_path / "float", names=["quality"])
    half = make_reward_model(tmp_path / "half", names=["quality"])
    stored(AutoModelForSequenceClassification, path, half, BFLOAT)
    groups = [("Describe the otter.", ["It swims.", "It eats fish near the river."])]
    precise, coarse = (load_scorer(model, tokens_per_batch=800) for model in (path, half))
    assert (precise.model.dtype, coarse.model.base_model.dtype) == (FLOAT, BFLOAT)
    a, b = (scorer.score_chunk(groups)[0] for scorer in (precise, coarse))
    assert not np.array_equal(a, b)
    np.testing.assert_allclose(a, b, atol=0.05 * np.abs(a).max())
    judges = [PreferenceJudge.load(model).model.dtype for model in (path, half)]
    assert judges == [FLOAT, BFLOAT]
