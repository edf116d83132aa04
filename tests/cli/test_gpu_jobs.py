"""Jobs that should have a GPU, on a machine without one: each ends before it reads any weights."""

import json
import shutil

import pytest

from dpa.artefacts.jsonl import write_jsonl
from dpa.records import Prompt, Sample
from dpa.runtime.run_environment import RunEnvironment
from dpa.text.prompts import prompt_id
from tests.support.script_processes import HEAVY, processes
from tests.support.tiny_models import make_reward_model

PROMPT = "Describe the otter."
GPU = {"DPA_GPU": "True", "CUDA_VISIBLE_DEVICES": "-1"}
DIRECTIONS = '{"distribution": "arc", "from_degrees": -45, "to_degrees": 0}'


@pytest.fixture
def folder(tmp_path, tiny_policy):
    """A policy and a reward model without weights, and one row of everything."""
    shutil.copytree(tiny_policy, tmp_path / "policy")
    make_reward_model(tmp_path / "reward_model", names=["quality"])
    for name in ("policy", "reward_model"):
        (tmp_path / name / "model.safetensors").write_bytes(b"no weights")
    prompt = Prompt(prompt_id=prompt_id(PROMPT), prompt=PROMPT, source="test")
    write_jsonl(tmp_path / "prompts.jsonl", [prompt])
    sample = Sample(
        prompt_id=prompt.prompt_id, direction_index=0, sample_index=0, seed=0,
        response="An otter.", finish_reason="stop", prompt_tokens=3, response_tokens=3,
    )  # fmt: skip
    write_jsonl(tmp_path / "sampled.jsonl", [sample])
    (tmp_path / "pairs.csv").write_text(f'prompt,response\n"{PROMPT}",An otter.\n')
    turns = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": "Yes."}]
    rows = 16 * (json.dumps({"messages": turns}) + "\n")
    (tmp_path / "demonstrations.jsonl").write_text(rows)
    return tmp_path


JOBS = {
    "sample_responses": [
        "--policy", "policy", "--prompts", "prompts.jsonl", "--iteration", "1", "--seed", "0",
        "--directions", DIRECTIONS, "--objective-names", "helpfulness,verbosity",
        "--directions-per-prompt", "1", "--responses-per-direction", "1",
        "--shard", "0", "--shards", "1", "--output", "out",
    ],
    "score_responses": [
        "--reward-model", "reward_model", "--table", "pairs.csv", "--output", "out.csv",
    ],
    "judge_rewardbench": [
        "--preference-judge", "reward_model", "--samples", "sampled.jsonl",
        "--prompts", "prompts.jsonl", "--output", "out",
    ],
    "train_sft": [
        "--base-model", "policy", "--demonstrations", '{"path": "demonstrations.jsonl"}',
        "--schedule", '{"batch_size": 4}', "--seed", "0", "--output", "out",
    ],
}  # fmt: skip


@pytest.mark.parametrize("script", JOBS)
def test_a_job_without_its_gpu_ends_before_it_reads_weights(folder, script):
    done = processes(HEAVY).run(script, JOBS[script], folder, environment=GPU)
    assert done.code == 2, done.output
    errors = [line for line in done.output.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert "should have a GPU (compute.gpu) and has none; torch says: " in errors[0]
    assert "NVIDIA" in errors[0]
    assert "Traceback" not in done.output
    assert not (folder / "out").exists()


@pytest.mark.slow
def test_a_judge_that_hangs_ends_its_job(folder):
    make_reward_model(folder / "reward_model", names=["quality"])
    shutil.copy(folder / "policy/chat_template.jinja", folder / "reward_model")
    done = processes(HEAVY).run(
        "judge_rewardbench", JOBS["judge_rewardbench"], folder,
        fault="tests.support.faults:judge_hangs", environment={"DPA_HANG_MINUTES": "0.05"},
    )  # fmt: skip
    assert done.code == 75, done.output
    assert "judging out made no progress" in done.output
    assert "in stuck" in done.output  # where it hangs
    assert not (folder / "out").exists()


def test_a_run_by_hand_goes_on_without(folder):
    """And then meets the weights, which are none."""
    assert not RunEnvironment.read().gpu
    done = processes(HEAVY).run(
        "judge_rewardbench", JOBS["judge_rewardbench"], folder,
        environment={"CUDA_VISIBLE_DEVICES": "-1"},
    )  # fmt: skip
    assert done.code == 2
    assert "cannot load the weights" in done.output
