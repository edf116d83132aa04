"""Stamps: rewritten when content changes, whatever a file's time stamp says, and only then."""

import os
from pathlib import Path

import pytest

from dpa.workflow.stamps import Stamps

OLD = (10**9, 10**9)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A user's own file, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_text("one\n")
    return Path("mine.jsonl")


def stamp_again(make=lambda stamps: stamps.content("mine.jsonl")) -> bool:
    """Whether another run rewrites the stamp."""
    before = Path(make(Stamps(writing=False)))
    os.utime(before, OLD)
    stamps = Stamps()
    assert Path(make(stamps)) == before
    stamps.save()
    return before.stat().st_mtime != OLD[0]


@pytest.fixture(autouse=True)
def _first_run(source):
    stamps = Stamps()
    stamps.content("mine.jsonl")
    stamps.save()


def test_unchanged_content_leaves_the_stamp_alone(source):
    assert not stamp_again()


def test_changed_content_rewrites_it(source):
    source.write_text("two, and longer\n")
    assert stamp_again()
    assert not stamp_again()


def test_a_file_replaced_by_an_older_one_rewrites_it(source):
    other = Path("other.jsonl")
    other.write_text("two\n")  # of the same size
    os.utime(other, OLD)
    os.replace(other, source)
    assert stamp_again()


def test_a_touched_file_does_not(source):
    os.utime(source)
    assert not stamp_again()
    os.utime(source, OLD)
    assert not stamp_again()


def test_a_folder_is_its_names_and_contents(source):
    def make(stamps):
        return stamps.content("model")

    Path("model").mkdir()
    Path("model/a").write_text("1")
    Stamps().content("model")
    Path("model/.snakemake_timestamp").touch()
    assert not stamp_again(make)
    Path("model/a").rename("model/b")
    assert stamp_again(make)


def test_nothing_is_read_twice(source, monkeypatch):
    monkeypatch.setattr("dpa.workflow.stamps.content_hash", lambda path: pytest.fail("hashed"))
    Stamps().content("mine.jsonl")


def test_hashes_that_cannot_be_read_are_made_again(source):
    Path("results/.stamps/hashes.json").write_text("{")
    assert not stamp_again()


def test_what_is_missing_is_left_to_snakemake(source):
    assert Stamps().content("none.jsonl") == "none.jsonl"


def test_a_cluster_job_writes_nothing_that_is_there(source):
    stamp = Path(Stamps().content("mine.jsonl"))
    before = stamp.read_bytes()
    source.write_text("two, and longer\n")
    stamps = Stamps(writing=False)
    stamps.content("mine.jsonl")
    stamps.save()
    assert stamp.read_bytes() == before


def test_two_files_have_two_stamps(source):
    paths = ("a b.jsonl", "a_b.jsonl", "x/" * 30 + "a_b.jsonl")
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("")
    assert len({Stamps().content(path) for path in paths}) == 3


def test_code_stamps_are_of_a_scripts_closure(source):
    stamps = Stamps()
    path = Path(stamps.code("collect_rewardbench"))
    assert path == Path("results/.stamps/code/collect_rewardbench")
    assert len(path.read_text().splitlines()) == 1
    assert path.read_text() != Path(stamps.code("collect_seeds")).read_text()
    with_others = Path(stamps.code("collect_rewardbench", ["config.yaml"])).read_text()
    assert with_others.splitlines()[1].startswith("config.yaml ")
    assert not stamp_again(lambda s: s.code("collect_rewardbench", ["config.yaml"]))
