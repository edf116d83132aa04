"""Reward Soup's evaluation: one soup after another, resumed and cleaned up."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from dpa.artefacts.jsonl import read_jsonl, write_jsonl
from dpa.config.sampling import SamplingConfig
from dpa.errors import InputError
from dpa.generation.sample import EVALUATION, Steering, always, sample_file
from dpa.methods import reward_soup as soup_sampling
from dpa.methods.reward_soup import sample_soups
from dpa.records import Prompt, Sample

DIRECTIONS = [[1.0, 0.0], [0.8, -0.6], [0.0, -1.0]]
SAMPLING = SamplingConfig(
    engine="transformers", temperature=0.7, max_new_tokens=12, max_prompt_tokens=64,
    kv_cache_dtype="auto", prompts_per_chunk=2, rows_per_batch=8, max_truncated_fraction=1.0,
)  # fmt: skip


@pytest.fixture
def soups(tiny_policy, tiny_tokenizer, tmp_path):
    """Runs sample_soups on two experts and three prompts; returns the output."""
    other = tmp_path / "other"
    model = AutoModelForCausalLM.from_pretrained(tiny_policy)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(other)
    tiny_tokenizer.save_pretrained(other)
    prompts = tmp_path / "prompts.jsonl"
    write_jsonl(
        prompts, [Prompt(prompt_id=i, prompt=f"Describe the {i}.", source="t") for i in "abc"]
    )

    def run(name="soups.jsonl"):
        sample_soups(
            tmp_path / name,
            experts=[tiny_policy, other],
            expert_directions=[[1.0, 0.0], [0.0, -1.0]],
            directions=DIRECTIONS,
            prompts=prompts,
            samples=2,
            sampling=SAMPLING,
            seed=3,
        )
        return tmp_path / name

    run.experts, run.prompts = (tiny_policy, other), prompts
    return run


def test_records_name_their_direction_and_only_the_file_is_left(soups, tmp_path):
    output = soups()
    records = read_jsonl(output, Sample)
    assert [r.direction for r in records] == [v for v in DIRECTIONS for _ in range(3 * 2)]
    assert [r.direction_index for r in records] == [i for i in range(3) for _ in range(3 * 2)]
    sidecar = json.loads((tmp_path / "soups.jsonl.meta.json").read_text())
    assert (sidecar["soups"], sidecar["responses"]) == (3, 18)
    assert sidecar["response_tokens"] == sum(r.response_tokens for r in records)
    assert sidecar["counts"] == {"read": 3, "kept": 3, "dropped": {}}
    assert sidecar["truncated"] == sum(r.finish_reason == "length" for r in records)
    assert not list(tmp_path.glob("soups*/"))


def test_the_first_soup_is_the_first_expert(soups, tmp_path):
    records = read_jsonl(soups(), Sample)
    alone = tmp_path / "alone.jsonl"
    sample_file(
        alone, policy=soups.experts[0], prompts=soups.prompts,
        steer=always([Steering(0, samples=2)]), names=[], sampling=SAMPLING, seed=3,
        iteration=EVALUATION,
    )  # fmt: skip
    assert [r.response for r in records[:6]] == [r.response for r in read_jsonl(alone, Sample)]


def test_a_killed_run_keeps_the_directions_that_are_done(soups, tmp_path, monkeypatch):
    whole = soups().read_bytes()
    made = []

    def interpolate(experts, weights, output):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(weights)
        real(experts, weights, output)

    real = soup_sampling.interpolate
    monkeypatch.setattr(soup_sampling, "interpolate", interpolate)
    with pytest.raises(KeyboardInterrupt):
        soups("again.jsonl")
    made.clear()
    resumed = soups("again.jsonl")
    assert resumed.read_bytes() == whole
    assert made == [[0.0, 1.0]]


def test_a_missing_expert_is_named(soups, tmp_path):
    with pytest.raises(InputError, match="train the expert first"):
        sample_soups(
            tmp_path / "x.jsonl", experts=[tmp_path / "none"],
            expert_directions=DIRECTIONS[::2], directions=DIRECTIONS, prompts=soups.prompts,
            samples=1, sampling=SAMPLING, seed=0,
        )  # fmt: skip


def test_a_part_that_lost_its_sidecar_is_finished_again(soups, tmp_path, monkeypatch):
    """A kill can fall between a part and its sidecar."""
    whole = soups().read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(soup_sampling, "write_jsonl", killed)
        with pytest.raises(KeyboardInterrupt):
            soups("again.jsonl")
    (work,) = tmp_path.glob("again.jsonl.partial")
    (work / "1.jsonl.meta.json").unlink()
    assert soups("again.jsonl").read_bytes() == whole
