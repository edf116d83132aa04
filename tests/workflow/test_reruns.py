"""What makes Snakemake run a job of a finished run again: code, a user's own files, neither.

On the finished run of every method, whose code is edited in a copy.
"""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.support.methods_run import CONFIG
from tests.support.own_data import RATINGS, TARGET, add_own_data
from tests.support.snakemake_runs import copy_repository, planned_jobs, snakemake

pytestmark = pytest.mark.slow

#: Who trains a policy or a reward model, or makes one from scratch.
TRAININGS = {
    "pretrain_base_model", "train_reward_model", "train_sft", "train_initial_policy",
    "train_steerlm", "train_dpo", "train_directional_dpo", "train_ric", "train_ppo",
    "train_online_dpo",
    "finetune_policy",
}  # fmt: skip
KEPT = "rerun_on_code_change=false"
CODE = "\n\nADDED = 1\n"
COMMENT = "\n\n# A remark.\n"


@pytest.fixture(scope="module")
def finished(methods_run, tmp_path_factory):
    """A copy of the finished run."""
    return shutil.copytree(methods_run.folder, tmp_path_factory.mktemp("reruns") / "clone")


@pytest.fixture
def edit(finished):
    """A function that edits a file of the copy, which is restored at the end."""
    before: dict[Path, bytes] = {}

    def change(name: str, added: str) -> Path:
        path = finished / name
        before.setdefault(path, path.read_bytes())
        path.write_text(path.read_text() + added)
        return path

    yield change
    for path, content in before.items():
        path.write_bytes(content)


def test_a_copy_of_a_finished_run_is_finished(finished):
    assert planned_jobs(finished, *CONFIG) == {}


def test_comments_and_docstrings_rerun_nothing(finished, edit):
    for name in ("errors", "runtime/cli", "runtime/log", "config/load", "config/trainer"):
        edit(f"dpa/{name}.py", COMMENT)
    path = edit("dpa/config/experiment.py", "")
    path.write_text(path.read_text().replace('"""', '"""A new line.\n\n', 1))
    assert planned_jobs(finished, *CONFIG) == {}


@pytest.mark.parametrize("name", ["errors", "runtime/cli", "config/load"])
def test_code_that_computes_no_result_reruns_nothing(finished, edit, name):
    edit(f"dpa/{name}.py", CODE)
    assert planned_jobs(finished, *CONFIG) == {}


def test_the_trainers_code_reruns_the_trainings(finished, edit):
    edit("dpa/config/trainer.py", CODE)
    jobs = planned_jobs(finished, *CONFIG)
    assert set(jobs) >= TRAININGS
    assert set(jobs) >= {
        "annotate_responses",
        "sample_responses",
        "score_evaluation",
        "make_report",
    }
    assert not set(jobs) & {"prepare_data", "make_quickstart_data", "preflight"}
    # What is kept is kept, whatever the code is now.
    assert planned_jobs(finished, *CONFIG, KEPT) == {}


#: What follows from the policies of DPO, Directional DPO and online DPO.
FROM_PAIRS = {
    "train_dpo": 1, "train_directional_dpo": 1, "train_online_dpo": 1, "sample_evaluation": 3,
    "score_evaluation": 3,
    "collect_validation_rewards": 1, "make_table1": 1, "plot_pareto_front": 1, "plot_samples": 1,
    "plot_overoptimisation": 1, "plot_policy_gradient": 1, "plot_costs": 1,
    "plot_training_curves": 1, "make_report": 1, "collect_provenance": 1, "all": 1,
}  # fmt: skip


def test_a_methods_code_reruns_what_it_trains(finished, edit):
    edit("dpa/methods/dpo.py", CODE)
    assert planned_jobs(finished, *CONFIG) == FROM_PAIRS


def test_a_module_replaced_by_an_older_one_reruns(finished, edit):
    path = edit("dpa/methods/dpo.py", CODE)
    os.utime(path, (10**9, 10**9))
    assert planned_jobs(finished, *CONFIG) == FROM_PAIRS


def test_an_edit_that_is_undone_reruns_nothing(finished):
    """After all of those above: stamps are new then, and say what they said."""
    assert planned_jobs(finished, *CONFIG) == {}


def test_switching_the_key_reruns_nothing(finished):
    assert planned_jobs(finished, *CONFIG, KEPT) == {}
    assert planned_jobs(finished, *CONFIG) == {}


# --- A user's own files ----------------------------------------------------------------------

MINE = ("--config", "experiment=mine.yaml")


@pytest.fixture(scope="module", params=[(), (KEPT,)], ids=["rerun", "kept"])
def prepared(request, tmp_path_factory):
    """A finished prepare_data on a file of one's own, and the key that it was run with."""
    folder = add_own_data(copy_repository(tmp_path_factory.mktemp("own")))
    snakemake(folder, "--cores", "1", *MINE, *request.param, "--", TARGET)
    return folder, request.param


@pytest.mark.parametrize("key", [(), (KEPT,)], ids=["then rerun", "then kept"])
def test_the_key_decides_over_code_and_not_over_files(prepared, key):
    folder, _ = prepared

    def jobs(*other: str) -> Counter[str]:
        return Counter(planned_jobs(folder, *MINE, *key, *other, "--", TARGET))

    data, code = folder / RATINGS, folder / "dpa/data/prepare.py"
    assert jobs() == {}
    os.utime(data)
    assert jobs() == {}
    content, source = data.read_text(), code.read_text()
    data.write_text(content.replace("Yes.", "No.", 1))
    os.utime(data, (10**9, 10**9))
    assert jobs() == {"prepare_data": 1}
    data.write_text(content)
    assert jobs() == {}
    code.write_text(source + CODE)
    assert jobs() == ({} if key else {"prepare_data": 1})
    code.write_text(source)
    assert jobs() == {}
