import csv
import gzip
import json
import math
from pathlib import Path

import pyarrow.parquet
import pytest

from dpa.artefacts.row_counts import RowCounts
from dpa.config.data import SourceConfig, describe
from dpa.data.sources import (
    as_prompt,
    as_response,
    cell,
    read_messages,
    read_placed_rows,
    read_rows,
)
from dpa.errors import InputError
from dpa.records import Turn

ROWS = [
    {"prompt": "Why?", "response": 'So, "as\nit" is: é', "stars": 5},
    {"prompt": "How?", "response": "Thus.", "stars": 1},
    {"prompt": "Who?", "response": "x" * 200_000, "stars": 3},
]


def write(path: Path, rows: list[dict] = ROWS) -> Path:
    """Rows as a file of the kind that the path's ending says."""
    if path.name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)
    elif path.name.endswith(".csv"):
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.name.endswith(".json"):
        path.write_text(json.dumps(rows))
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read(path: Path) -> list[dict]:
    return list(read_rows(SourceConfig(path=str(path))))


class TestKindsOfFiles:
    @pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "parquet"])
    def test_typed(self, tmp_path, ending):
        assert read(write(tmp_path / f"rows.{ending}")) == ROWS

    def test_csv_has_only_text(self, tmp_path):
        assert read(write(tmp_path / "rows.csv")) == [{**r, "stars": str(r["stars"])} for r in ROWS]

    def test_csv_of_a_spreadsheet(self, tmp_path):
        (tmp_path / "rows.csv").write_bytes('\ufeffprompt,stars\r\n"a\r\nb",5\r\n\r\n'.encode())
        assert read(tmp_path / "rows.csv") == [{"prompt": "a\r\nb", "stars": "5"}]

    def test_parquet_streams_in_batches(self, tmp_path, monkeypatch):
        monkeypatch.setattr("dpa.data.sources.PARQUET_BATCH", 2)
        path = write(tmp_path / "rows.parquet")
        placed = list(read_placed_rows(SourceConfig(path=str(path))))
        assert [place for place, _ in placed] == [f"{path}: row {n}" for n in (1, 2, 3)]

    def test_parquet_of_long_rows_is_read_a_few_at_a_time_or_refused(self, tmp_path, monkeypatch):
        path = write(tmp_path / "rows.parquet", [{"response": f"{i}" * 400_000} for i in range(5)])
        assert path.stat().st_size < 200_000
        batches = []
        real = pyarrow.parquet.ParquetFile.iter_batches

        def counted(file, **options):
            batches.append(options["batch_size"])
            return real(file, **options)

        monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", counted)
        monkeypatch.setattr("dpa.data.sources.MAX_LINE", 1_000_000)
        assert len(read(path)) == 5
        assert batches == [2]
        monkeypatch.setattr("dpa.data.sources.MAX_LINE", 300_000)
        with pytest.raises(InputError, match=r"rows\.parquet: rows of .* split or leave out"):
            read(path)

    def test_nested_columns_of_parquet(self, tmp_path):
        rows = [{"completions": [{"annotations": {"honesty": {"Rating": "N/A"}}}] * 2}]
        assert read(write(tmp_path / "rows.parquet", rows)) == rows

    def test_a_folders_files_in_the_order_of_their_names(self, tmp_path):
        write(tmp_path / "b.jsonl", ROWS[:1])
        write(tmp_path / "a.parquet", ROWS[1:2])
        write(tmp_path / "c.csv", ROWS[1:2])
        (tmp_path / "README.md").write_text("no data")
        write(tmp_path / "b.jsonl.meta.json", [{"sidecar": 1}])
        assert [row["prompt"] for row in read(tmp_path)] == ["How?", "Why?", "How?"]

    @pytest.mark.parametrize(
        ("ending", "place"),
        [("jsonl", ":2"), ("csv", ":4"), ("json", ": row 2"), ("parquet", ": row 2")],
    )
    def test_places(self, tmp_path, ending, place):
        # The first response has a line break: in CSV the second row starts in line 4.
        path = write(tmp_path / f"rows.{ending}")
        found = [place for place, _ in read_placed_rows(SourceConfig(path=str(path)))]
        assert found[1] == f"{path}{place}"


class TestErrors:
    def test_no_such_file(self, tmp_path):
        with pytest.raises(InputError, match=r"none\.csv: no such file; paths are relative to"):
            read(tmp_path / "none.csv")

    def test_unknown_kind(self, tmp_path):
        (tmp_path / "rows.xlsx").write_bytes(b"x")
        with pytest.raises(InputError, match=r"rows\.xlsx: unknown kind of file; known: \.jsonl,"):
            read(tmp_path / "rows.xlsx")
        with pytest.raises(InputError, match="no file of a known kind here"):
            read(tmp_path)

    @pytest.mark.parametrize(
        ("name", "content"), [("a.jsonl", b""), ("a.json", b"[]"), ("a.csv", b"prompt,stars\n")]
    )
    def test_no_rows(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: no rows"):
            read(tmp_path / name)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b'{"a": 1}\n{"a": 1}\n{"a": \n', ":3: "),
            (b'{"a": 1}\n{"a": 1}\n{"a": "\xff"}\n', ":3: "),
            (b'{"a": 1}\n{"a": 1}\n[1]\n', ":3: Expected `object`, got `array`"),
            (b'{"a": 1}\n\n{"a": 1}\n', ":2: .*blank"),
        ],
    )
    def test_jsonl(self, tmp_path, content, message):
        path = tmp_path / "rows.jsonl"
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"^{path}{message}"):
            read(path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"a,b\n1,2\n1,2,3\n", ":3: 3 fields, the header has 2; quote fields"),
            (b'a,b\n1,2\n"1\n\n', ":3: unexpected end of data"),
            (b"a,b\n1,2\n\xff,2\n", ":3: not UTF-8"),
            (b"a,b,a\n1,2,3\n", r":1: the header has \['a'\] more than once"),
        ],
    )
    def test_csv(self, tmp_path, content, message):
        path = tmp_path / "rows.csv"
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"^{path}{message}"):
            read(path)

    @pytest.mark.parametrize("content", [b'{"a": 1}', b"[1]", b"\xff", b""])
    def test_json(self, tmp_path, content):
        (tmp_path / "rows.json").write_bytes(content)
        with pytest.raises(InputError, match=r"rows\.json: expected a list of objects"):
            read(tmp_path / "rows.json")

    def test_parquet(self, tmp_path):
        (tmp_path / "rows.parquet").write_bytes(b"PAR1")
        with pytest.raises(InputError, match=r"rows\.parquet: not a readable parquet file"):
            read(tmp_path / "rows.parquet")

    def test_missing_column(self):
        with pytest.raises(
            InputError, match=r"^f:1: no column 'promt'; columns found: prompt, stars$"
        ):
            cell({"prompt": "x", "stars": 1}, "promt", "f:1")
        with pytest.raises(InputError, match="f:1: expected an object with 'Rating', found 'N/A'"):
            cell("N/A", "Rating", "f:1")  # type: ignore[arg-type]


class TestHub:
    """More of it, against a hub, in test_hub_data.py."""

    SOURCE = SourceConfig(path="org/data", revision="abc", split="train")

    def test_a_local_repository_folder(self, tmp_path, monkeypatch):
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        folder = tmp_path / "repository"
        (folder / "data").mkdir(parents=True)
        write(folder / "data" / "train-00000-of-00001.parquet")
        write(folder / "data" / "test-00000-of-00001.parquet", ROWS[:1])
        source = SourceConfig(path=str(folder), revision="abc", split="test")
        assert list(read_rows(source)) == ROWS[:1]

    def test_names_in_sidecars(self):
        assert describe(self.SOURCE) == "org/data@abc"
        assert describe(SourceConfig(path="a.csv")) == "a.csv"


class TestCells:
    def turns(self, *contents: str) -> list[dict[str, str]]:
        roles = ("user", "assistant") * len(contents)
        return [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]

    def test_prompts(self):
        assert as_prompt("Why?", "prompt", "f:1") == "Why?"
        assert as_prompt(self.turns("Why?"), "prompt", "f:1") == "Why?"
        assert as_prompt(self.turns("a", "b", "c"), "prompt", "f:1") == [
            Turn("user", "a"),
            Turn("assistant", "b"),
            Turn("user", "c"),
        ]

    @pytest.mark.parametrize("value", [None, "", " \n", [], [{"role": "user", "content": " "}]])
    def test_empty_prompts(self, value):
        assert as_prompt(value, "prompt", "f:1") is None

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (3, "f:1: column 'prompt' is neither a string nor a list of"),
            (["Why?"], "Expected `object`"),
            ([{"role": "human", "content": "x"}], "Invalid enum value 'human'"),
            ([{"role": "user"}], "missing required field `content`"),
            (
                [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                "ends with a turn of the assistant",
            ),
        ],
    )
    def test_prompts_of_the_wrong_type(self, value, message):
        with pytest.raises(InputError, match=message):
            as_prompt(value, "prompt", "f:1")

    def test_responses(self):
        assert as_response(" So.", "response", "f:1") == " So."
        assert as_response(None, "response", "f:1") is None
        assert as_response("\n", "response", "f:1") is None
        with pytest.raises(InputError, match="f:1: column 'response' is a float, not a string"):
            as_response(math.nan, "response", "f:1")


class TestMessages:
    """Content that is not a text: what is no text is not learnt, and counted."""

    def conversations(self, tmp_path, *conversations):
        path = write(tmp_path / "rows.jsonl", [{"messages": turns} for turns in conversations])
        counts = RowCounts()
        return list(read_messages(SourceConfig(path=str(path)), counts)), counts

    def test_a_turn_without_text_is_left_out_and_counted(self, tmp_path):
        called = {"role": "assistant", "content": None, "tool_calls": [{"function": {}}]}
        turns = [turn("user", "Weather?"), called, turn("tool", "12 C"), turn("assistant", "12 C.")]
        for none in (called, turn("assistant", ""), turn("assistant", " \n"), turn("system", None)):
            kept, counts = self.conversations(tmp_path, [turns[0], none, *turns[2:]])
            assert kept == [[turns[0], *turns[2:]]]
            assert counts.shortened == {"a turn without text": 1}
            assert not counts.dropped

    def test_parts_of_text_are_joined(self, tmp_path):
        parts = [{"type": "text", "text": "Wea"}, "ther?"]
        [kept], counts = self.conversations(
            tmp_path, [turn("user", parts), turn("assistant", "12 C.")]
        )
        assert kept[0] == turn("user", "Weather?")
        assert not counts.dropped
        assert as_prompt([turn("user", parts)], "prompt", "f:1") == "Weather?"

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ([{"type": "image", "url": "x"}], "content that is not text"),
            (12, "content that is not text"),
            ({"a": 1}, "content that is not text"),
            (None, "a turn of the user without text"),
            ("", "a turn of the user without text"),
        ],
    )
    def test_a_row_with_anything_else_is_dropped_and_counted(self, tmp_path, content, reason):
        good = [turn("user", "Why?"), turn("assistant", "Thus.")]
        kept, counts = self.conversations(
            tmp_path, good, [turn("user", content), turn("assistant", "Thus.")]
        )
        assert kept == [good]
        assert counts.dropped == {reason: 1}
        assert counts.read == 1  # who takes the conversations counts those

    def test_a_prompt_leaves_turns_without_text_out(self):
        turns = [turn("user", "a"), turn("assistant", None), turn("user", "b")]
        assert as_prompt(turns, "prompt", "f:1") == [Turn("user", "a"), Turn("user", "b")]


def turn(role, content):
    return {"role": role, "content": content}
