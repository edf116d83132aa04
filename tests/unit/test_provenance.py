import json

import pytest

from dpa.artefacts.files import content_hash, save_folder, write_text
from dpa.artefacts.row_counts import RowCounts, check_truncated
from dpa.artefacts.sidecars import read_sidecar, sidecar_path, write_sidecar
from dpa.errors import InputError
from dpa.runtime.run_environment import announce_run


def losses(read: int, **dropped: int) -> RowCounts:
    counted = RowCounts()
    counted.read = read
    for reason, count in dropped.items():
        for _ in range(count):
            counted.drop(reason)
    return counted


class TestLosses:
    def test_counts(self):
        counted = losses(10, empty=2, malformed=1)
        assert counted.kept == 7
        assert counted.as_dict() == {
            "read": 10,
            "kept": 7,
            "dropped": {"empty": 2, "malformed": 1},
        }
        assert str(counted) == "read 10, kept 7, dropped 2 empty, 1 malformed"

    def test_the_limit_is_allowed(self):
        losses(100, empty=5).check(0.05, "file")
        losses(0).check(0.0, "file")

    def test_more_than_the_limit_stops(self):
        with pytest.raises(InputError, match=r"file: dropped 6 of 100 rows \(\{'empty': 6\}\)"):
            losses(100, empty=6).check(0.05, "file")

    def test_what_was_asked_for_is_no_loss(self):
        counted = losses(100, empty=1)
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
        announce_run(
            "abc",
            7,
            {"org/base": "a" * 40},
            limits={"max_dropped_fraction": 0.5, "max_truncated_fraction": 0.1},
            trusted=[],
        )
        (tmp_path / "in.jsonl").write_text("in\n")
        (tmp_path / "out.jsonl").write_text("out\n")
        write_sidecar(
            tmp_path / "out.jsonl",
            [tmp_path / "in.jsonl", "org/model@rev", "org/base"],
            losses(3, empty=1),
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
            write_sidecar(tmp_path / "out.jsonl", [], losses(3, empty=2))
        check_truncated(1, 10, "file")
        with pytest.raises(InputError, match=r"2 of 10 .*limits\.max_truncated_fraction"):
            check_truncated(2, 10, "file")

    def test_the_same_run_writes_the_same_sidecar(self, tmp_path):
        (tmp_path / "out").write_text("out\n")
        write_sidecar(tmp_path / "out", [tmp_path / "out"], losses(2))
        first = sidecar_path(tmp_path / "out").read_bytes()
        write_sidecar(tmp_path / "out", [tmp_path / "out"], losses(2))
        assert sidecar_path(tmp_path / "out").read_bytes() == first

    @pytest.mark.parametrize("content", [None, "{"])
    def test_missing_or_broken(self, tmp_path, content):
        if content is not None:
            sidecar_path(tmp_path / "out").write_text(content)
        with pytest.raises(InputError, match="rerun the rule that makes"):
            read_sidecar(tmp_path / "out")


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

    def test_a_failing_block_leaves_the_old_file(self, tmp_path):
        write_text(tmp_path / "figure.svg", "old")
        with pytest.raises(UnicodeEncodeError):
            write_text(tmp_path / "figure.svg", "half of it, then \ud800")
        assert (tmp_path / "figure.svg").read_text() == "old"

    def test_a_saved_folder_replaces_the_old_one(self, tmp_path):
        for name in ("old", "new"):
            save_folder(tmp_path / "model", lambda folder, name=name: write_text(folder / name, ""))
        assert [p.name for p in (tmp_path / "model").iterdir()] == ["new"]
        assert json.dumps([p.name for p in tmp_path.iterdir()]) == '["model"]'
