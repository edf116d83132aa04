"""Checkpoints are data: no pickles, no code of theirs; and nothing of ours goes through a shell."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from dpa import models
from dpa.config.load import load_config
from dpa.errors import InputError
from dpa.runtime.run_environment import CLONE
from dpa.text import chat_template
from dpa.text.tokenization import ChatTokenizer
from tests.support.hub_server import commit_of, hub_server
from tests.support.tiny_models import make_reward_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TRUSTED = "DPA_TRUST_REMOTE_CODE"


class Bomb:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def pickled(tmp_path, tiny_policy):
    """A policy folder whose weights are a pickle that would leave `mark`."""
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_policy, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with open(folder / "pytorch_model.bin", "wb") as file:
        pickle.dump(Bomb(tmp_path / "mark"), file)
    return folder


@pytest.fixture
def with_code(tmp_path, tiny_policy):
    """A policy folder of an architecture of its own, whose code would leave `mark`."""
    folder = tmp_path / "with_code"
    shutil.copytree(tiny_policy, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "architectures": ["Own"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
    return folder


def test_shards_that_start_at_once_fetch_a_model_once(tmp_path, tiny_policy):
    """And the weights in one format, whoever comes first."""
    repository = tmp_path / "repository"
    shutil.copytree(tiny_policy, repository)
    shutil.copy(repository / "model.safetensors", repository / "consolidated.safetensors")
    (repository / "pytorch_model.bin").write_bytes(b"a pickle")
    commit = commit_of("org/policy")
    code = f"from dpa.models import download; download('org/policy@{commit}')"
    with hub_server({("models", "org/policy"): repository}) as hub:
        environment = os.environ | hub.environment(tmp_path / "cache")
        jobs = [
            subprocess.Popen([sys.executable, "-c", code], cwd=CLONE, env=environment)
            for _ in range(3)
        ]
        assert [job.wait(60) for job in jobs] == [0, 0, 0]
        asked = [path.rpartition("/")[2] for path in hub.gets]
    assert asked.count("model.safetensors") == 1
    assert not {"consolidated.safetensors", "pytorch_model.bin"} & set(asked)


def test_pickled_weights_are_refused_and_not_loaded(pickled, tmp_path):
    from dpa.methods.reward_soup import interpolate

    loads = [
        lambda: models.load_model(AutoModelForCausalLM, pickled),
        lambda: interpolate([pickled, pickled], [0.5, 0.5], tmp_path / "soup"),
    ]
    for load in loads:
        with pytest.raises(InputError, match="safetensors"):
            load()
    assert not (tmp_path / "mark").exists()
    # The bomb is real.
    pickle.loads((pickled / "pytorch_model.bin").read_bytes())
    assert (tmp_path / "mark").exists()


def test_a_pickle_beside_safetensors_is_left_alone(tmp_path):
    folder = tmp_path / "model"
    make_reward_model(folder)
    with open(folder / "pytorch_model.bin", "wb") as file:
        pickle.dump(Bomb(tmp_path / "mark"), file)
    model = models.load_model(AutoModelForSequenceClassification, folder, dtype=torch.float32)
    assert model.config.num_labels == 3
    assert not (tmp_path / "mark").exists()


def test_a_models_own_code_is_not_run(with_code, tmp_path, monkeypatch):
    monkeypatch.setenv(TRUSTED, f"organisation/name@{COMMIT}")  # another one
    for load in (
        lambda: models.load_checkpoint_config(with_code),
        lambda: models.load_model(AutoModelForCausalLM, with_code),
    ):
        with pytest.raises(InputError, match=r"list .* under trust_remote_code"):
            load()
    assert not (tmp_path / "mark").exists()


def test_a_class_that_transformers_lacks_is_not_replaced_by_its_own(tmp_path, monkeypatch):
    """As the published reward model has one: its type is Mistral's, its head is not."""
    from dpa.reward.load import load_scorer

    folder = tmp_path / "model"
    make_reward_model(folder)
    config = json.loads((folder / "config.json").read_text())
    native = config["architectures"]
    auto_map = {"AutoModelForSequenceClassification": "own.MistralForAttributePrediction"}
    own = {"architectures": ["MistralForAttributePrediction"], "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(config | own))
    message = r"of its own \(MistralForAttributePrediction\), .* DPA_TRUST_REMOTE_CODE=.*@<commit>"
    with pytest.raises(InputError, match=message):
        load_scorer(folder, tokens_per_batch=64)
    ref = models.ModelRef("organisation/name", COMMIT)
    with pytest.raises(InputError, match=f"list organisation/name@{COMMIT} under trust_remote_co"):
        models.refuse_own_code(own, ref)
    monkeypatch.setenv(TRUSTED, f"organisation/name@{COMMIT}")
    models.refuse_own_code(own, ref)
    # Code that came before transformers had the class is not needed any more.
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": auto_map}))
    assert native == ["MistralForSequenceClassification"]
    assert load_scorer(folder, tokens_per_batch=64).names


@pytest.mark.parametrize(
    ("path", "revision", "trusted"),
    [
        ("organisation/name", COMMIT, True),
        ("organisation/name", COMMIT[::-1], False),
        ("organisation/name", "main", False),
        ("organisation/name", None, False),
        ("organisation/other", COMMIT, False),
        ("name", COMMIT, False),
    ],
)
def test_only_a_listed_commit_may_bring_code(monkeypatch, path, revision, trusted):
    asked = []

    class Kind:
        def from_pretrained(self, path, **options):
            asked.append(options)
            return object(), {"missing_keys": [], "unexpected_keys": []}

    monkeypatch.setenv(TRUSTED, f"organisation/name@{COMMIT} another/model@{COMMIT}")
    models.load_model(Kind(), models.ModelRef(path, revision))
    assert asked[0]["trust_remote_code"] is trusted
    assert asked[0]["use_safetensors"] is True
    assert asked[0]["revision"] == revision
    monkeypatch.delenv(TRUSTED)
    models.load_model(Kind(), models.ModelRef(path, revision))
    assert asked[1]["trust_remote_code"] is False


def test_code_is_downloaded_where_it_may_run(monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda _, **o: asked.append(o))
    for listed in ("organisation/other", "organisation/name"):
        monkeypatch.setenv(TRUSTED, f"{listed}@{COMMIT}")
        models.download(f"organisation/name@{COMMIT}")
    assert ["*.py" in options["allow_patterns"] for options in asked] == [False, True]


@pytest.mark.parametrize("value", [True, "true", ["organisation/name"], [f"*@{COMMIT}"]])
def test_trust_cannot_be_given_wholesale(value):
    with pytest.raises(InputError, match="trust_remote_code"):
        load_config({"trust_remote_code": value})


LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (LOOPS, "takes more than 2 seconds for 1 short"),
        ("{% if messages|length > 2 %}" + LOOPS + "{% endif %}", "2 seconds for 4 short turns"),
        ("{{ 'a' * 9000000 }}", "writes 9,000,000 characters"),
        ("{{ 'a' * 10 ** 15 }}", "takes more memory than there is"),
    ],
)
def test_a_template_that_does_not_end_is_refused(
    template, what, tiny_policy, tmp_path, monkeypatch
):
    monkeypatch.setattr(chat_template, "TEMPLATE_SECONDS", 2.0)
    shutil.copytree(tiny_policy, tmp_path / "policy")
    ChatTokenizer.load(tmp_path / "policy")
    (tmp_path / "policy/chat_template.jinja").write_text(template)
    with pytest.raises(InputError, match=rf"policy: the chat template .*{re.escape(what)}"):
        ChatTokenizer.load(tmp_path / "policy")
