"""The real command on a tiny model: what can be trained can be saved."""

import json
import shutil

import pytest

from tests.support.script_processes import HEAVY, processes


@pytest.fixture
def job(tmp_path, tiny_policy):
    """Runs a training that saves a checkpoint at every step, from such a policy."""

    def run(**generation):
        shutil.copytree(tiny_policy, tmp_path / "base")
        file = tmp_path / "base/generation_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | generation))
        turns = [
            {"role": "user", "content": "Describe the otter."},
            {"role": "assistant", "content": "It swims."},
        ]
        rows = 8 * (json.dumps({"messages": turns}) + "\n")
        (tmp_path / "demonstrations.jsonl").write_text(rows)
        options = [
            *("--base-model", "base", "--demonstrations", '{"path": "demonstrations.jsonl"}'),
            *("--schedule", '{"batch_size": 4, "epochs": 1, "max_length": 128}'),
            *("--trainer", '{"save_steps": 1}', "--seed", "0", "--output", "policy"),
        ]
        return processes(HEAVY).run("train_sft", options, tmp_path)

    return run


def test_a_temperature_without_sampling_does_not_lose_the_training(job, tmp_path):
    """As Vicuna's. transformers loads such a generation config, and refuses to save it."""
    done = job(temperature=0.9, top_p=0.6, length_penalty=2.0)
    assert done.code == 0, done.output
    assert "temperature, top_p, length_penalty in generation_config.json: without" in done.output
    saved = json.loads((tmp_path / "policy/generation_config.json").read_text())
    before = json.loads((tmp_path / "base/generation_config.json").read_text())
    unused = {"temperature", "top_p", "length_penalty", "transformers_version"}
    assert {key: saved.get(key) for key in before.keys() - unused} == {
        key: value for key, value in before.items() if key not in unused
    }
    assert not saved.keys() & {"temperature", "top_p", "length_penalty"}


def test_what_cannot_be_saved_is_said_before_training(job, tmp_path):
    done = job(num_return_sequences=2)
    assert done.code == 2, done.output
    errors = [line for line in done.output.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert "num_return_sequences" in errors[0]
    assert "1/2 steps" not in done.output
    assert not (tmp_path / "policy").exists()
