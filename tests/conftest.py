"""Fixtures that several test files share: a tiny policy, and a finished miniature run."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from tests.support.finished_run import FinishedRun

# Tiny models are fastest on one thread, and so do the scripts that tests start run in the pipeline.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def own_environment():
    """What a test announces to jobs (RunEnvironment) ends with it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A byte-level BPE tokenizer with chat template and distinct pad, bos and eos."""
    from tests.support.tiny_models import make_chat_tokenizer

    return make_chat_tokenizer()


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory, tiny_tokenizer) -> Path:
    """A chat policy: Mistral architecture, two layers of width 64, seeded random weights."""
    from tests.support.tiny_models import make_policy

    return make_policy(tmp_path_factory.mktemp("tiny") / "policy", tiny_tokenizer)


def made_once(tmp_path_factory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one of the test run's processes makes, and all of them read."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            half = folder.with_name(f"{name}.half")
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            make(half)
            half.rename(folder)
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> "FinishedRun":
    """The stages of DPA, RSF and the pairs of DPO, and one evaluated policy; not to be changed."""
    from tests.support.finished_run import FinishedRun
    from tests.support.rule_commands import METHOD

    def make(folder: Path) -> None:
        FinishedRun.build(
            folder,
            "{methods: [dpa, sft, dpo, rsf, reward_soup, ppo], sampling: {prompts_per_chunk: 1}}",
            lambda command: (
                "evaluation/dpa-2" in command.log
                or "score_evaluation/reward_model/dpa-2" in command.log
                or (command.script in (*METHOD, "pair_ratings") and "evaluation" not in command.log)
            ),
        )

    return FinishedRun.load(made_once(tmp_path_factory, "finished_run", make))
