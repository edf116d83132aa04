"""The lock file, and how a configuration takes its revisions from it; the hub is a stand-in."""

import os
import subprocess
import sys

import pytest
import yaml

from dpa.config.base import ModelConfig, is_commit
from dpa.config.data import SourceConfig
from dpa.config.experiment import Config
from dpa.config.load import floating, hub_repositories, load_config, read_locks, with_revisions
from dpa.config.revisions import LOCK_FILE, LOCKED, Lock, read_lock, write_lock
from dpa.errors import InputError
from dpa.runtime.run_environment import CLONE
from tests.support.hub_server import commit_of, hub_server

A, B, C = (digit * 40 for digit in "abc")
HUB = ["mistral-7b", "gemma-2b-harmless", "single-gpu"]


class TestLock:
    def test_round_trip(self, tmp_path):
        path = tmp_path / "lock.yaml"
        assert read_lock(path) == Lock()
        lock = Lock(
            models={"org/b": B, "org/a": A},
            datasets={"org/a": C},
            unverified={("model", "org/a")},
        )
        write_lock(path, lock)
        assert read_lock(path) == lock
        assert path.read_text().index("org/a") < path.read_text().index("org/b")
        assert path.read_text().startswith("# Commits of the hub repositories")

    def test_a_commit_that_nobody_has_verified_is_marked_by_a_field(self, tmp_path):
        path = tmp_path / "lock.yaml"
        write_lock(path, Lock(models={"org/a": A}, unverified={("model", "org/a")}))
        assert yaml.safe_load(path.read_text())["models"] == {
            "org/a": {"commit": A, "verified": False}
        }

    @pytest.mark.parametrize("experiment", HUB)
    def test_the_shipped_file_opens_the_experiments(self, experiment):
        assert floating(load_config({"experiment": experiment})) is None

    def test_a_folders_own_commit_is_not_the_clones(self, tmp_path, monkeypatch):
        name = "nvidia/HelpSteer"
        assert ("dataset", name) in read_locks().unverified
        write_lock(tmp_path / LOCK_FILE, Lock(datasets={name: A}))
        monkeypatch.chdir(tmp_path)
        assert read_locks().datasets[name] == A
        assert ("dataset", name) not in read_locks().unverified

    def test_the_published_reward_model_has_one_entry(self):
        """As docs/real-data.md and the experiment's comment have it."""
        name = "RLHFlow/RewardModel-Mistral-7B-for-DPA-v1"
        pinned = f"{name}@{read_locks().models[name]}"
        config = load_config(
            {
                "experiment": "mistral-7b",
                "reward_model": {"path": name, "revision": LOCKED},
                "trust_remote_code": [pinned],
            }
        )
        assert floating(config) is None
        for path in ("docs/real-data.md", "experiments/mistral-7b.yaml"):
            text = (CLONE / path).read_text()
            assert pinned in text
            assert "Haoxiang-Wang/" not in text

    def test_the_shipped_file_is_what_would_be_written(self, tmp_path):
        write_lock(tmp_path / "lock.yaml", read_lock(CLONE / LOCK_FILE))
        assert (tmp_path / "lock.yaml").read_text() == (CLONE / LOCK_FILE).read_text()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("models: {org/a: main}", "lock.yaml: org/a: 'main' is not a commit of 40 hex"),
            ("models: {org/a: 1234567}", "lock.yaml: Expected `str.*`, got `int`"),
            ("modles: {}", "lock.yaml: .*unknown field `modles`"),
            ("models: [", "lock.yaml: .*line 1, column"),
        ],
    )
    def test_a_broken_file_is_refused(self, tmp_path, content, message):
        (tmp_path / "lock.yaml").write_text(content)
        with pytest.raises(InputError, match=message):
            read_lock(tmp_path / "lock.yaml")

    @pytest.mark.parametrize(
        ("revision", "commit"), [(A, True), ("main", False), ("v1.0", False), (A[:7], False)]
    )
    def test_commits(self, revision, commit):
        assert is_commit(revision) is commit


def unlocked_config(experiment: str, **overrides) -> Config:
    """An experiment as if nothing had been locked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dpa.config.load.read_locks", Lock)
        return load_config({"experiment": experiment, **overrides})


class TestConfiguration:
    def locked(self, experiment: str, **overrides) -> tuple[Config, Lock]:
        """The experiment, and a lock with every repository that it names."""
        config = unlocked_config(experiment, **overrides)
        lock = Lock()
        for _, found in hub_repositories(config):
            lock.commits(found.kind)[str(found.path)] = commit_of(str(found.path))
        return with_revisions(config, lock), lock

    @pytest.mark.parametrize("experiment", HUB)
    def test_every_model_and_data_set_of_a_hub_experiment_is_locked(self, experiment):
        config, lock = self.locked(experiment)
        assert floating(config) is None
        for key, found in hub_repositories(config):
            assert found.revision == commit_of(str(found.path)), key
        # Seven or more: a walk that misses a section would pass with less.
        assert len(lock.models) + len(lock.datasets) >= 6
        assert "nvidia/HelpSteer" in lock.datasets
        assert "nvidia/HelpSteer" not in lock.models

    def test_what_the_lock_lacks_is_named(self):
        _, lock = self.locked("mistral-7b")
        del lock.models["mistralai/Mistral-7B-v0.1"]
        half = with_revisions(unlocked_config("mistral-7b"), lock)
        assert half.base_model.revision == LOCKED
        assert floating(half) == f"not in {LOCK_FILE}: mistralai/Mistral-7B-v0.1"

    def test_models_and_data_sets_of_the_same_name_differ(self):
        config = load_config(
            {"sft": {"path": "org/x", "revision": LOCKED}, "experiment": "quickstart"}
        )
        assert with_revisions(config, Lock(datasets={"org/x": A})).sft.revision == LOCKED
        assert with_revisions(config, Lock(models={"org/x": A})).sft.revision == A

    def test_a_branch_is_refused_unless_allowed(self):
        overrides = {"sft": {"path": "org/x", "revision": "main"}}
        assert floating(load_config(overrides)) == (
            "sft.revision: 'main' is no commit of 40 digits"
        )
        assert floating(load_config({**overrides, "allow_floating": "true"})) is None

    def test_allowed_floating_takes_the_main_branch_of_what_is_unlocked(self):
        overrides = {"sft": {"path": "org/x", "revision": LOCKED}, "allow_floating": True}
        config = load_config(overrides)
        assert config.sft.revision == "main"
        assert floating(config) is None

    def test_a_hub_id_without_a_revision_is_no_folder(self, tmp_path):
        problem = floating(load_config({"sft": {"path": "org/x"}}))
        assert problem == "sft.path: no folder org/x here, and no revision of a hub id"
        assert floating(load_config({"sft": {"path": str(tmp_path)}})) is None

    def test_the_quickstart_needs_no_lock(self):
        assert floating(load_config()) is None

    def test_a_null_model_keeps_no_revision(self):
        config = load_config({"experiment": "mistral-7b", "sft": {"path": None}})
        assert all(not isinstance(m, ModelConfig) or m.path for _, m in hub_repositories(config))

    def test_a_source_is_a_data_set(self):
        assert (SourceConfig.kind, ModelConfig.kind) == ("dataset", "model")


@pytest.fixture(scope="module")
def hub():
    with hub_server({("models", "org/model"): None, ("datasets", "org/data"): None}) as found:
        yield found


class TestScript:
    """The real command against a hub on loopback."""

    def run(self, hub, folder, *arguments, **environment):
        command = [sys.executable, "-m", "scripts.lock_revisions", *arguments]
        return subprocess.run(
            [*command, "--lock-file", str(folder / "lock.yaml")],
            cwd=CLONE,
            env={**os.environ, **hub.environment(folder / "cache"), **environment},
            capture_output=True,
            text=True,
        )

    def test_asks_for_what_is_missing_and_keeps_what_is_there(self, hub, tmp_path):
        write_lock(tmp_path / "lock.yaml", Lock(models={"org/other": A, "org/model": B}))
        before = len(hub.requests)
        result = self.run(hub, tmp_path, "--hub-model", "org/model", "--hub-dataset", "org/data")
        assert result.returncode == 0, result.stderr
        assert read_lock(tmp_path / "lock.yaml") == Lock(
            models={"org/other": A, "org/model": B}, datasets={"org/data": commit_of("org/data")}
        )
        assert hub.requests[before:] == ["/api/datasets/org/data"]
        assert f"dataset org/data: locked at {commit_of('org/data')}" in result.stderr
        assert f"model org/model: already locked at {B}" in result.stderr

    def test_check_compares_with_the_hub(self, hub, tmp_path):
        path, real = tmp_path / "lock.yaml", commit_of("org/model")
        lock = Lock(
            models={"org/model": real},
            datasets={"org/data": commit_of("org/data")},
            unverified={("model", "org/model")},
        )
        write_lock(path, lock)
        offline = self.run(hub, tmp_path, "--check", HF_HUB_OFFLINE="1")
        assert offline.returncode == 0, offline.stderr
        assert f"not verified: model org/model at {real}: the hub does not answer" in offline.stderr
        assert read_lock(path) == lock
        done = self.run(hub, tmp_path, "--check")
        assert done.returncode == 0, done.stderr
        assert read_lock(path).unverified == set()
        lock.models |= {"org/model": B, "org/gone": A}
        lock.unverified.add(("model", "org/gone"))
        write_lock(path, lock)
        wrong = self.run(hub, tmp_path, "--check")
        assert wrong.returncode == 2
        assert "lock.yaml: 2 are wrong:" in wrong.stderr
        assert f"model org/model at {B}: the hub does not have it" in wrong.stderr
        assert f"model org/gone at {A}: the hub does not have it" in wrong.stderr
        assert "Traceback" not in wrong.stderr
        assert read_lock(path).unverified == {("model", "org/model"), ("model", "org/gone")}

    @pytest.mark.parametrize(
        ("arguments", "environment", "message"),
        [
            (("--hub-model", "org/none"), {}, "model org/none: the hub does not have it: "),
            (("--hub-model", "a/b/c"), {}, "model a/b/c: not a hub id: "),
            (("--hub-model", "org/model"), {"HF_HUB_OFFLINE": "1"}, "the hub does not answer: "),
            (
                ("--hub-dataset", "org/data"),
                {"HF_ENDPOINT": "http://127.0.0.1:9"},
                "data set org/data",
            ),
        ],
    )
    def test_failures_are_one_line_and_write_nothing(
        self, hub, tmp_path, arguments, environment, message
    ):
        result = self.run(hub, tmp_path, *arguments, **environment)
        assert result.returncode == 2
        assert message in result.stderr
        assert "Traceback" not in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not (tmp_path / "lock.yaml").exists()
