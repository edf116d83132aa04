"""A policy that leaves its folder: complete by itself, with a card, and on a hub."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from dpa.config.chat import ModelsConfig
from dpa.config.steering import ObjectiveConfig
from dpa.errors import InputError
from dpa.runtime.run_environment import CLONE
from dpa.serving.card import check_repository
from dpa.serving.export import export_policy
from dpa.serving.furnish import furnish_policy
from dpa.serving.steering import PolicySteering, read_steering
from scripts.chat import app
from tests.support.hub_server import commit_of, hub_server

MODELS = ModelsConfig(add_bos="auto", chat_template_date="2001-02-03")
COMMIT = "0" * 40
TURNS = [{"role": "user", "content": "Describe the otter."}]


@pytest.fixture
def policy(tiny_policy, tmp_path, monkeypatch):
    """A steered policy in the folder of its run, which has a record, a figure and a table."""
    run = tmp_path / "results/mine"
    folder = run / "dpa/iter2/policy"
    shutil.copytree(tiny_policy, folder)
    names = ("helpfulness", "verbosity")
    steering = PolicySteering(
        takes="direction",
        objectives=[ObjectiveConfig(name=name, outputs={f"mine-{name}": 1.0}) for name in names],
        directions={"distribution": "arc", "from_degrees": -45, "to_degrees": 0},
    )
    details = {"models": MODELS.model_dump(mode="json"), "rows": 12, "train_loss": 1.5}
    with monkeypatch.context() as job:
        job.setenv("DPA_COMMITS", json.dumps({"openbmb/UltraFeedback": COMMIT}))
        job.setenv("DPA_BASE_SEED", "7")
        furnish_policy(steering, folder, details)
    sidecar = {"stage": "finetune_policy", "code_version": "0.1.0+abc", "base_seed": 7,
               "sha256": "f" * 64}  # fmt: skip
    folder.with_name("policy.meta.json").write_text(json.dumps(sidecar))
    record = {"commits": {"openbmb/UltraFeedback": COMMIT, "org/base": COMMIT}}
    (run / "provenance.json").write_text(json.dumps(record))
    for path, content in (("figures/figure4.png", "png"), ("tables/table1.md", "| DPA | 99 |")):
        (run / path).parent.mkdir()
        (run / path).write_text(content)
    return folder


def test_an_export_is_complete_by_itself(policy, tmp_path):
    out = tmp_path / "elsewhere/otter"
    out.parent.mkdir()
    export_policy(policy, out, None, "apache-2.0")
    _, header, card = (out / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(header)
    assert metadata["license"] == "apache-2.0"
    assert metadata["library_name"] == "transformers"
    assert metadata["datasets"] == ["openbmb/UltraFeedback"]
    for part in (
        "# otter", "direction=[0.8, -0.6]", "helpfulness*80 + verbosity*-60", "rows: 12",
        "from_degrees -45.0", "![Figure 4](figure4.png)", "| DPA | 99 |", "org/base", COMMIT,
        "apache-2.0.", "base seed 7", "0.1.0+abc", "a misspelt `direction`",
    ):  # fmt: skip
        assert part in card, part
    assert (out / "figure4.png").read_text() == "png"
    shutil.rmtree(tmp_path / "results")
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert loaded.dtype == torch.bfloat16
    text = AutoTokenizer.from_pretrained(out).apply_chat_template(
        TURNS, tokenize=False, direction=[0.8, -0.6]
    )
    assert "helpfulness*80 + verbosity*-60" in text
    assert read_steering(out).training == {"rows": 12, "train_loss": 1.5}
    arguments = ["--policy", str(out), "--direction", "0.8,-0.6", "--prompt", "Hi"]
    done = CliRunner().invoke(app, [*arguments, "--max-new-tokens", "3"])
    assert "direction: helpfulness +0.80, verbosity -0.60" in done.output, done.exception


def test_a_trained_policys_folder_has_a_card(policy):
    """Before there is an export: what a training knows."""
    _, header, card = (policy / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(header)["datasets"] == ["openbmb/UltraFeedback"]
    for part in (
        "# A policy steered by helpfulness, verbosity", "direction=[0.8, -0.6]", "rows: 12",
        f"- `openbmb/UltraFeedback` at commit `{COMMIT}`", "None is given for the weights",
        "base seed 7", "torch ",
    ):  # fmt: skip
        assert part in card, part
    assert "Figure 4" not in card


def test_a_copied_policys_export_has_what_its_card_says(policy, tmp_path):
    """Nothing else of its run is there."""
    copied = tmp_path / "copied"
    shutil.copytree(policy, copied)
    export_policy(copied, tmp_path / "out", None, None)
    before, card = ((folder / "README.md").read_text() for folder in (copied, tmp_path / "out"))
    assert card.partition("## Data")[2] == before.partition("## Data")[2]
    assert "base seed 7" in card
    assert "license:" not in card
    (copied / "README.md").unlink()
    export_policy(copied, tmp_path / "bare", None, None)
    assert "Its run is not on record" in (tmp_path / "bare/README.md").read_text()


def test_what_cannot_be_exported_is_refused_before_it_is_loaded(tiny_policy, policy, tmp_path):
    with pytest.raises(InputError, match="not trained on directions"):
        export_policy(tiny_policy, tmp_path / "out", None, None)
    for name in ("name", "a/b/c", "a/b c", ""):
        with pytest.raises(InputError, match="give organisation/name"):
            check_repository(name)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_it_is_pushed_to_a_hub_and_steered_from_there(policy, tmp_path):
    (tmp_path / "hub").mkdir()
    with hub_server({}, uploads=tmp_path / "hub") as hub:

        def run(script, *arguments, token="secret"):
            return subprocess.run(
                [sys.executable, "-m", f"scripts.{script}", *map(str, arguments)],
                env=os.environ | hub.environment(tmp_path / "cache") | {"HF_TOKEN": token},
                cwd=CLONE, capture_output=True, text=True,
            )  # fmt: skip

        export = ("export_policy", "--policy", policy, "--push", "org/otter", "--output")
        refused = run(*export, tmp_path / "refused", token="wrong")
        assert refused.returncode == 2
        assert "org/otter: the hub does not take" in refused.stderr
        assert "hf auth login" in refused.stderr
        done = run(*export, tmp_path / "otter")
        assert done.returncode == 0, done.stderr
        files = {path.name for path in (tmp_path / "otter").iterdir()}
        assert {path.name for path in (tmp_path / "hub/org/otter").iterdir()} == files
        assert 'from_pretrained("org/otter")' in (tmp_path / "hub/org/otter/README.md").read_text()
        name = f"org/otter@{commit_of('org/otter')}"
        said = run("chat", "--policy", name, "--angle", "-30", "--prompt", "Hi",
                   "--max-new-tokens", "3")  # fmt: skip
        assert "direction: helpfulness +0.87, verbosity -0.50" in said.stdout, said.stderr
