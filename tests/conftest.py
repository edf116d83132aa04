"""Fixtures that several test files share: a tiny policy, made in a second."""

import os
from pathlib import Path

import pytest

# Tiny models are fastest on one thread, and so do the scripts that tests start run in the pipeline.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A byte-level BPE tokenizer with chat template and distinct pad, bos and eos."""
    from tests.tiny_policies import make_tokenizer

    return make_tokenizer()


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory, tiny_tokenizer) -> Path:
    """A chat policy: Mistral architecture, two layers of width 64, seeded random weights."""
    from tests.tiny_policies import make_policy

    return make_policy(tmp_path_factory.mktemp("tiny") / "policy", tiny_tokenizer)
