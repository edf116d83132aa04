import json
import logging
import os
import shutil
import time
from pathlib import Path

import pytest

from dpa.artefacts import sidecars
from dpa.artefacts.files import content_hash, files_in
from dpa.artefacts.jsonl import ChunkedWriter, write_jsonl
from dpa.artefacts.outputs import save_folder, sidecar_path, why_foreign, write_text
from dpa.artefacts.row_counts import RowCounts, check_truncated
from dpa.artefacts.sidecars import fingerprint, known_hash, read_sidecar, write_sidecar
from dpa.errors import InputError
from dpa.records import Prompt
from dpa.runtime.run_environment import RunEnvironment
from dpa.workflow.stamps import Stamps


def row_counts(read: int, **dropped: int) -> RowCounts:
    counted = RowCounts()
    counted.read = read
    for reason, count in dropped.items():
        for _ in range(count):
            counted.drop(reason)
    return counted


class TestRowCounts:
    def test_counts(self):
        counted = row_counts(10, empty=2, malformed=1)
        assert counted.kept == 7
        assert counted.as_dict() == {
            "read": 10,
            "kept": 7,
            "dropped": {"empty": 2, "malformed": 1},
        }
        assert str(counted) == "read 10, kept 7, dropped 2 empty, 1 malformed"

    def test_the_limit_is_allowed(self):
        row_counts(100, empty=5).check(0.05, "file")
        row_counts(0).check(0.0, "file")

    def test_more_than_the_limit_stops(self):
        with pytest.raises(InputError, match=r"file: dropped 6 of 100 rows \(\{'empty': 6\}\)"):
            row_counts(100, empty=6).check(0.05, "file")

    def test_what_was_asked_for_is_no_loss(self):
        counted = row_counts(100, empty=1)
        for _ in range(90):
            counted.drop("filter", asked_for=True)
        assert counted.kept == 9
        counted.check(0.1, "file")
        with pytest.raises(InputError, match="dropped 1 of 10 rows"):
            counted.check(0.05, "file")


class TestSidecar:
    def test_says_how_the_artefact_came_to_be(self, tmp_path, monkeypatch):
        for name in (
            "DPA_CONFIG_HASH",
            "DPA_BASE_SEED",
            "DPA_COMMITS",
            "DPA_MAX_DROPPED_FRACTION",
            "DPA_MAX_TRUNCATED_FRACTION",
            "DPA_TRUST_REMOTE_CODE",
        ):
            monkeypatch.setenv(name, "")
        RunEnvironment(
            config_hash="abc",
            base_seed="7",
            commits={"org/base": "a" * 40},
            max_dropped_fraction=0.5,
            max_truncated_fraction=0.1,
        ).announce()
        (tmp_path / "in.jsonl").write_text("in\n")
        (tmp_path / "out.jsonl").write_text("out\n")
        write_sidecar(
            tmp_path / "out.jsonl",
            [tmp_path / "in.jsonl", "org/model@rev", "org/base"],
            row_counts(3, empty=1),
            direction=[1.0, 0.0],
        )
        found = read_sidecar(tmp_path / "out.jsonl")
        assert found["artefact"] == "out.jsonl"
        assert found["sha256"] == content_hash(tmp_path / "out.jsonl")
        assert found["config_hash"] == "abc"
        assert found["base_seed"] == "7"
        assert found["code_version"].startswith("0.1.0")
        assert "numpy" in found["packages"]
        assert found["inputs"] == {
            str(tmp_path / "in.jsonl"): content_hash(tmp_path / "in.jsonl"),
            "org/model@rev": None,
            "org/base": "a" * 40,
        }
        assert found["counts"] == {"read": 3, "kept": 2, "dropped": {"empty": 1}}
        assert found["direction"] == [1.0, 0.0]
        assert found["records"] == 1
        # The run's limits hold for every stage that writes a sidecar.
        with pytest.raises(InputError, match=r"dropped 2 of 3 .*limits\.max_dropped_fraction"):
            write_sidecar(tmp_path / "out.jsonl", [], row_counts(3, empty=2))
        check_truncated(1, 10, "file")
        with pytest.raises(InputError, match=r"2 of 10 .*limits\.max_truncated_fraction"):
            check_truncated(2, 10, "file")

    def test_the_same_run_writes_the_same_sidecar(self, tmp_path):
        (tmp_path / "out").write_text("out\n")
        write_sidecar(tmp_path / "out", [tmp_path / "out"], row_counts(2))
        first = sidecar_path(tmp_path / "out").read_bytes()
        write_sidecar(tmp_path / "out", [tmp_path / "out"], row_counts(2))
        assert sidecar_path(tmp_path / "out").read_bytes() == first

    @pytest.mark.parametrize(
        "content",
        [None, "{", "[1]", "\xff", "[" * 50_000, '{"inputs": 3}', '{"counts": {"read": 1}}'],
    )
    def test_missing_or_broken(self, tmp_path, content):
        if content is not None:
            sidecar_path(tmp_path / "out").write_bytes(content.encode("latin-1"))
        with pytest.raises(InputError, match="out, then rerun"):
            read_sidecar(tmp_path / "out")


class TestKnownHashes:
    """What is hashed costs a model's loading time once more."""

    @pytest.fixture
    def model(self, tmp_path, monkeypatch):
        """A folder with its sidecar, as a training leaves it."""
        monkeypatch.chdir(tmp_path)
        folder = tmp_path / "model"
        save_folder(folder, lambda partial: write_text(partial / "weights", "of no great size"))
        time.sleep(0.02)  # the file system's clock ticks
        write_sidecar(folder)
        return folder

    @pytest.fixture
    def read(self, monkeypatch):
        """The files that were read to be hashed."""
        paths = []

        def reading(path):
            paths.append(path)
            return content_hash(path)

        monkeypatch.setattr(sidecars, "content_hash", reading)
        monkeypatch.setattr(sidecars, "_hashed", {})
        sidecars._stamped_hashes.cache_clear()
        yield paths
        sidecars._stamped_hashes.cache_clear()

    def test_an_artefact_is_taken_as_its_sidecar_found_it(self, model, read):
        (model / ".snakemake_timestamp").touch()  # comes after the sidecar
        assert known_hash(model) == content_hash(model)
        assert read == []

    @pytest.mark.parametrize("damage", ["written", "replaced by an older", "added", "cut", "moved"])
    def test_one_that_was_changed_since_is_read(self, model, read, damage):
        weights = model / "weights"
        if damage == "written":
            weights.write_text("OF no great size")
        elif damage == "replaced by an older":
            (model.parent / "older").write_text("OF no great size")
            os.utime(model.parent / "older", (0, 0))
            os.replace(model.parent / "older", weights)
        elif damage == "added":
            (model / "more").write_text("")
        elif damage == "cut":
            weights.write_text("")
        else:
            shutil.copytree(model, model.parent / "copy")
            shutil.copy2(sidecar_path(model), sidecar_path(model.parent / "copy"))
            os.utime(sidecar_path(model.parent / "copy"), (0, 0))
            model = model.parent / "copy"
        assert known_hash(model) == content_hash(model)
        assert set(read) == set(files_in(model))

    def test_without_a_sidecar_it_is_read_once_in_a_job(self, model, read):
        sidecar_path(model).unlink()
        write_text(model.parent / "scores.jsonl", "1\n")
        before = fingerprint([model])
        write_sidecar(model.parent / "scores.jsonl", [model])
        assert read == [model / "weights"]
        assert fingerprint([model]) == before
        assert read_sidecar(model.parent / "scores.jsonl")["inputs"] == {
            str(model): content_hash(model)
        }

    def test_what_stamps_have_hashed_is_not_read_again(self, model, read):
        sidecar_path(model).unlink()
        stamps = Stamps()
        stamps.content("model")
        stamps.save()
        assert known_hash(model) == content_hash(model)
        assert read == []


class TestFiles:
    def test_a_folders_hash_is_of_names_and_contents(self, tmp_path):
        hashes = []
        for name, content in [("a", "1"), ("b", "1"), ("a", "2")]:
            folder = tmp_path / f"{name}{content}"
            folder.mkdir()
            (folder / name).write_text(content)
            hashes.append(content_hash(folder))
        assert len(set(hashes)) == 3
        assert content_hash(tmp_path / "none") is None

    def test_a_card_is_no_content(self, tmp_path):
        """Its words change with the commit."""
        folder = tmp_path / "policy"
        save_folder(folder, lambda made: (made / "weights").write_text("1"))
        bare = content_hash(folder)
        (folder / "README.md").write_text("# A policy")
        assert content_hash(folder) == bare

    def test_a_failing_block_leaves_the_old_file(self, tmp_path):
        write_text(tmp_path / "figure.svg", "old")
        with pytest.raises(UnicodeEncodeError):
            write_text(tmp_path / "figure.svg", "half of it, then \ud800")
        assert (tmp_path / "figure.svg").read_text() == "old"

    def test_content_is_on_the_disk_before_its_name(self, tmp_path, monkeypatch):
        done = []

        def fsync(descriptor: int) -> None:
            name = Path(f"/proc/self/fd/{descriptor}").readlink().name
            if not name.endswith(".for"):  # who makes it
                done.append(name)

        monkeypatch.setattr(os, "fsync", fsync)
        replace = os.replace
        monkeypatch.setattr(os, "replace", lambda a, b: [done.append("rename"), replace(a, b)])
        there = tmp_path.name
        write_text(tmp_path / "a.json", "{}")
        assert done == ["a.json.partial", "rename", there]
        done.clear()
        save_folder(tmp_path / "model", lambda folder: (folder / "weights").write_text(""))
        assert done == ["weights", "model.partial", "rename", there]
        done.clear()
        write_jsonl(tmp_path / "a.jsonl", [{"a": 1}])
        assert done == ["a.jsonl.partial", "rename", there]

    def test_a_saved_folder_replaces_the_old_one(self, tmp_path):
        for name in ("old", "new"):
            save_folder(tmp_path / "model", lambda folder, name=name: write_text(folder / name, ""))
        assert [p.name for p in (tmp_path / "model").iterdir()] == ["new"]
        assert json.dumps([p.name for p in tmp_path.iterdir()]) == '["model"]'


class TestPartialResults:
    """Of a part that was made otherwise nothing is kept, and the log says what differs."""

    @pytest.fixture
    def known(self, tmp_path, monkeypatch):
        """Changes one kind of thing, and gives the fingerprint."""
        (tmp_path / "in.jsonl").write_text("in\n")
        settings = {"seed": 0}
        monkeypatch.setattr(sidecars, "code_hash", lambda: "code")

        def fingerprint(changed: str | None = None) -> sidecars.Fingerprint:
            match changed:
                case "code":
                    monkeypatch.setattr(sidecars, "code_hash", lambda: "other code")
                case "packages":
                    monkeypatch.setattr(sidecars, "installed", lambda package: "0")
                case "inputs":
                    (tmp_path / "in.jsonl").write_text("other\n")
                case "settings":
                    settings["seed"] = 1
            return sidecars.fingerprint([tmp_path / "in.jsonl", "org/model@rev"], **settings)

        return fingerprint

    @pytest.fixture(params=["code", "packages", "inputs", "settings"])
    def changed(self, request):
        return request.param

    def test_a_fingerprint_tells_them_apart(self, known, changed):
        before = known()
        now = known(changed)
        assert why_foreign(before, before) is None
        assert [kind for kind in now if now[kind] != before[kind]] == [changed]

    def test_of_a_file(self, tmp_path, known, changed, caplog):
        def writer(fingerprint):
            return ChunkedWriter(tmp_path / "out.jsonl", Prompt, [1, 1], fingerprint)

        before = known()
        first = writer(before)
        first.write([Prompt(prompt_id="0", prompt="Why?", source="test")])
        first.close()
        with caplog.at_level(logging.WARNING, "dpa"):
            again = writer(before)
            again.close()
            assert (again.done, caplog.messages) == (1, [])
            assert writer(known(changed)).done == 0
        [line] = caplog.messages
        assert line.startswith(f"{tmp_path / 'out.jsonl.partial'}: discarded (")
        assert line.endswith(f": it was made with other {changed}")

    def test_of_a_training(self, tmp_path, known, changed, caplog):
        from dpa.training.checkpoints import Checkpoints

        before = known()
        first = Checkpoints(tmp_path / "model", lambda: before)
        (first.folder / "checkpoint-2").mkdir()
        first.mark(2)
        with caplog.at_level(logging.WARNING, "dpa"):
            first.close()
            again = Checkpoints(tmp_path / "model", lambda: before)
            assert again.last is not None
            again.close()
            assert caplog.messages == []
            assert Checkpoints(tmp_path / "model", lambda: known(changed)).last is None
        assert caplog.messages == [
            f"{first.folder}: discarded, and started anew: it was made with other {changed}"
        ]

    def test_several_differences_and_no_fingerprint(self, known):
        before = known()
        known("code")
        reason = why_foreign(before, known("settings"))
        assert reason == "it was made with other code and settings"
        assert why_foreign({}, known()) is not None
