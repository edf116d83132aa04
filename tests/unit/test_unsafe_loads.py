"""No source file of ours loads a model on other terms than dpa.models sets, or starts a shell."""

import re

import pytest

from dpa.runtime.run_environment import CLONE
from tests.support.unsafe_loads import unsafe_loads

SOURCES = sorted(
    path
    for folder in ("dpa", "scripts", "benchmarks", "envs")
    for path in (CLONE / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CLONE)))
def test_sources_load_and_start_nothing_unsafe(path):
    assert unsafe_loads(path.read_text(), str(path.relative_to(CLONE))) == []


def test_the_workflow_loads_nothing():
    for path in (CLONE / "Snakefile", *(CLONE / "rules").glob("*.smk")):
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
    text = (CLONE / path).read_text()
    assert term in text
    assert unsafe_loads(text.replace(term, instead), path)


def test_the_policy_gradients_reference_is_loaded_on_the_same_terms():
    path = "dpa/methods/rloo.py"
    text = (CLONE / path).read_text()
    assert unsafe_loads(text.replace("model_init_kwargs=model_options(job.start),", ""), path)
