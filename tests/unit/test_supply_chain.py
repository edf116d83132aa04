"""Checkpoints are data: no pickles, no code of theirs; and nothing of ours goes through a shell."""

import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from dpa import models
from dpa.config.load import ROOT, load_config
from dpa.errors import InputError
from dpa.runtime.run_environment import TRUSTED
from tests.loading import unsafe_loads
from tests.tiny_models import make_reward_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


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


def test_pickled_weights_are_refused_and_not_loaded(pickled, tmp_path):
    from dpa.methods.reward_soup import interpolate

    loads = [
        lambda: models.load_model(AutoModelForCausalLM, pickled, None),
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
    model = models.load_model(AutoModelForSequenceClassification, folder, None, dtype=torch.float32)
    assert model.config.num_labels == 3
    assert not (tmp_path / "mark").exists()


def test_a_models_own_code_is_not_run(with_code, tmp_path, monkeypatch):
    monkeypatch.setenv(TRUSTED, f"organisation/name@{COMMIT}")  # another one
    for load in (
        lambda: models.load_checkpoint_config(with_code, None),
        lambda: models.load_model(AutoModelForCausalLM, with_code, None),
    ):
        with pytest.raises(InputError, match=r"list .* under trust_remote_code"):
            load()
    assert not (tmp_path / "mark").exists()


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
            return object(), {"missing_keys": []}

    monkeypatch.setenv(TRUSTED, f"organisation/name@{COMMIT} another/model@{COMMIT}")
    models.load_model(Kind(), path, revision)
    assert asked[0]["trust_remote_code"] is trusted
    assert asked[0]["use_safetensors"] is True
    assert asked[0]["revision"] == revision
    monkeypatch.delenv(TRUSTED)
    models.load_model(Kind(), path, revision)
    assert asked[1]["trust_remote_code"] is False


@pytest.mark.parametrize("value", [True, "true", ["organisation/name"], [f"*@{COMMIT}"]])
def test_trust_cannot_be_given_wholesale(value):
    with pytest.raises(InputError, match="trust_remote_code"):
        load_config({"trust_remote_code": value})


SOURCES = sorted(
    path
    for folder in ("dpa", "scripts", "benchmarks", "envs")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sources_load_and_start_nothing_unsafe(path):
    assert unsafe_loads(path.read_text(), str(path.relative_to(ROOT))) == []


def test_the_workflow_loads_nothing():
    for path in (ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")):
        found = re.findall(
            r"from_pretrained|load_dataset|pickle|eval\(|os\.system", path.read_text()
        )
        assert found == [], path


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("from transformers import AutoModel\nAutoModel.from_pretrained(p)", "through dpa.models"),
        ("import transformers as t\nload = t.AutoModel.from_pretrained", "through dpa.models"),
        ("from peft import PeftModel\nPeftModel.from_pretrained(m, p)", "through dpa.models"),
        ("getattr(kind, 'from_pretrained')(path)", "only dpa.models may"),
        ("kind(path, **{'trust_remote_code': True})", "only dpa.models may"),
        ("model.load_adapter(path)", "through dpa.models"),
        ("from transformers import pipeline as p\np('text-generation')", "through dpa.models"),
        ("import torch as t\nt.load(path)", "torch.load runs what it reads"),
        ("from torch import load\nload(path, weights_only=False)", "weights_only"),
        ("from pickle import loads as text\ntext(b)", "pickle.loads runs what it reads"),
        ("import numpy as np\nnp.load(path, allow_pickle=True)", "allow_pickle"),
        ("import yaml\nyaml.load(text, Loader=yaml.Loader)", "without a safe loader"),
        ("import subprocess\nsubprocess.run(line, shell=True)", "shell"),
        ("import os\nos.system('ls')", "os.system"),
        ("kind(path, trust_remote_code=True)", "is_trusted"),
        ("kind(path, trust_remote_code=settings.trust)", "is_trusted"),
        ("kind(path, use_safetensors=None)", "use_safetensors"),
        ("import datasets\ndatasets.load_dataset(name)", "without revision"),
        ("from datasets import load_dataset as l\nl(name, split=s)", "without revision"),
        (
            "from huggingface_hub import snapshot_download\nsnapshot_download(p, revision=r)",
            "without allow_patterns",
        ),
        (
            "from transformers import GenerationConfig\nGenerationConfig.from_pretrained(p)",
            "without revision",
        ),
        (
            "from trl import DPOTrainer\nclass Own(DPOTrainer): pass\n"
            "Own(model=m, processing_class=t)",
            "without ref_model",
        ),
        ("from trl import SFTTrainer\nSFTTrainer(model='org/name')", "through dpa.models"),
        ("from trl import RLOOConfig\nRLOOConfig(beta=0.1)", "without model_init_kwargs"),
        (
            "from trl import RLOOConfig\nRLOOConfig(model_init_kwargs={'revision': r})",
            "take dpa.models.model_options",
        ),
        ("from vllm import LLM\nLLM(model=path)", "without load_format"),
    ],
)
def test_an_unsafe_source_is_found(source, why):
    assert any(why in line for line in unsafe_loads(source, "dpa/new.py")), source
    # The one who sets the terms is bound by them where he loads otherwise than by from_pretrained.
    if "through" not in why and "only" not in why:
        assert unsafe_loads(source, "dpa/models.py")


@pytest.mark.parametrize("path", ["dpa/generation/vllm_engine.py", "dpa/reward/vllm_scorer.py"])
@pytest.mark.parametrize(
    ("term", "instead"),
    [
        ('load_format="safetensors",', ""),
        ('load_format="safetensors",', 'load_format="auto",'),
        ("trust_remote_code=is_trusted", "trust_remote_code=bool"),
        ("tokenizer_revision=", "seed="),
        ("        refuse_pickles(", "        str("),
    ],
)
def test_vllm_keeps_every_term(path, term, instead):
    text = (ROOT / path).read_text()
    assert term in text
    assert unsafe_loads(text.replace(term, instead), path)


def test_the_policy_gradients_reference_is_loaded_on_the_same_terms():
    path = "dpa/methods/rloo.py"
    text = (ROOT / path).read_text()
    assert unsafe_loads(text.replace("model_init_kwargs=model_options(*start),", ""), path)
