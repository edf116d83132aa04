"""Inputs from outside within bounds: what is no file, what does not end, what multiplies."""

import gzip
import os
import resource
from pathlib import Path

import pytest

from dpa.artefacts.jsonl import decode_lines, write_jsonl
from dpa.config.data import SourceConfig
from dpa.data.sources import read_rows
from dpa.errors import InputError
from dpa.evaluation.alpacaeval import read_outputs
from dpa.runtime import reading
from dpa.runtime.reading import read_json
from dpa.runtime.sections import read_value, read_yaml

BILLION_LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def rows(path: Path) -> list:
    return list(read_rows(SourceConfig(path=str(path), revision=None, split=None)))


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz", "in.json", "in.csv", "in.parquet"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: is a FIFO; give a regular file"):
        rows(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(InputError, match=rf"{name}: is a device; give a regular file"):
        rows(tmp_path / name)


@pytest.mark.parametrize("read", [read_json, read_yaml, read_value, read_outputs])
def test_nor_as_a_document(tmp_path, read):
    os.mkfifo(tmp_path / "in.json")
    with pytest.raises(InputError, match=r"in\.json: is a FIFO"):
        read(tmp_path / "in.json")


def test_a_small_archive_with_an_endless_line_takes_no_memory(tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    member = gzip.compress(b"a" * (32 << 20), compresslevel=1)
    path.write_bytes(gzip.compress(b'{"prompt": "a"}\n') + member * 90)  # 3 GB of one line
    assert path.stat().st_size < 16 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"bomb\.jsonl\.gz:2: a line of more than 256 MiB"):
        rows(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 800 << 10  # KiB


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_long_line_is_named(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(reading, "MAX_LINE", 1000)
    path = tmp_path / f"in.{ending}"
    path.write_text('{"a": 1}\n' + "x" * 1001 + "\n")
    with pytest.raises(InputError, match=rf"in\.{ending}:2: a line of more than"):
        rows(path)


def test_a_quote_that_spans_the_file_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("dpa.data.sources.MAX_LINE", 1000)
    (tmp_path / "in.csv").write_text('a\n"' + "x\n" * 600)
    with pytest.raises(InputError, match=r"in\.csv:2: field larger than field limit"):
        rows(tmp_path / "in.csv")


def test_a_response_of_30_mb_is_read(tmp_path):
    record = {"prompt": "a", "response": "b" * 30_000_000}
    write_jsonl(tmp_path / "in.jsonl", [record])
    assert rows(tmp_path / "in.jsonl") == [record]


@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_deep_nesting_is_named(tmp_path, ending):
    path = tmp_path / f"in.{ending}"
    path.write_text("[" * 50_000)
    with pytest.raises(InputError, match=rf"in\.{ending}"):
        rows(path)
    path.write_text('{"a":' * 50_000)
    with pytest.raises(InputError, match=rf"in\.{ending}"):
        rows(path)


def test_a_broken_sidecar_is_named_and_can_be_deleted(tmp_path):
    path, sidecar = tmp_path / "in.jsonl", tmp_path / "in.jsonl.meta.json"
    write_jsonl(path, [{"a": 1}])
    for content in (b"{", b"\xff", b"[" * 50_000, b"1" * 5000):
        sidecar.write_bytes(content)
        with pytest.raises(InputError, match=r"in\.jsonl\.meta\.json: .*; delete it"):
            list(decode_lines(path, dict))
    sidecar.unlink()
    assert list(decode_lines(path, dict)) == [{"a": 1}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BILLION_LAUGHS, "line 7.*|aliases make it more than 1,000,000 values"),
        ("a: &a [*a]", "contains itself"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "[" * 150 + "]" * 150, "nested more than 100 levels deep"),
        ("a: !!timestamp 2020-13-45", "month must be in 1..12"),
        ("a: !!int x", "invalid literal"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("? [a]\n: b", "unhashable key"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: " + "x" * (512 << 10), "more than 512 KiB of YAML"),
    ],
)
def test_yaml_is_bounded(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"(?s)mine\.yaml.*({message})"):
        read_value(tmp_path / "mine.yaml")


def test_aliases_within_bounds_are_read(tmp_path):
    (tmp_path / "mine.yaml").write_text("a: &a [1, 2]\nb: *a\n")
    assert read_value(tmp_path / "mine.yaml") == {"a": [1, 2], "b": [1, 2]}
