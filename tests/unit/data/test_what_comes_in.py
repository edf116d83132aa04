"""Raw data: all that can be read is read, and what cannot is named."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from dpa.config.data import SourceConfig, TableConfig
from dpa.data import sources
from dpa.data.rated import Tally
from dpa.data.sources import read_placed_rows
from dpa.data.user_table import read_table, table_scales
from dpa.errors import InputError

ROW = {"prompt": "Why?", "response": "So.", "stars": 3}
CSV = "prompt,response,stars\nWhy?,So.,3\n"


def rows_of(path) -> list[dict]:
    return [row for _, row in read_placed_rows(SourceConfig(path=str(path)))]


# --- Folders ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "more/deep").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "B.CSV").write_text(CSV)
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    (tmp_path / "more/d.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "more/deep/e.JSONL.GZ").write_bytes(gzip.compress(json.dumps(ROW).encode() + b"\n"))
    (tmp_path / "more/f.json").write_text(json.dumps([ROW]))
    for hidden in (".git/x.csv", ".hidden.csv", "a.csv.meta.json", "z.csv.partial"):
        (tmp_path / hidden).write_text("not to be read")
    return tmp_path


def test_a_folder_is_read_as_a_whole(folder, caplog):
    found = rows_of(folder)
    assert len(found) == 6
    assert {str(row["stars"]) for row in found} == {"3"}
    assert caplog.messages == []


def test_what_is_left_out_of_a_folder_is_named_once(folder, caplog):
    for name in ("README.md", "more/table.xlsx"):
        (folder / name).write_text("x")
    sources._name_left_out.cache_clear()
    for _ in range(2):
        assert len(rows_of(folder)) == 6
    assert caplog.messages == [
        f"{folder}: 2 files of other kinds are left out: README.md, more/table.xlsx"
    ]


# --- Twice, and marks ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        '{"stars": 1, "prompt": "a", "stars": 5}',
        '{"stars" : 1, "stars" : 5}',
        '{"stars"\t: 1, "stars":5, "x": 1}',
        '{"turns": [{"role": "user", "content": "a", "content": "b"}]}',
        '{"a": {"b": 1, "b": 2}, "text": "\\":\\":"}',
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_a_key_given_twice_is_refused(tmp_path, line, kind):
    path = tmp_path / f"rows.{kind}"
    path.write_text(f"{line}\n" if kind == "jsonl" else f"[{line}]")
    with pytest.raises(InputError, match=r"rows\.jsonl?.*is given twice"):
        rows_of(path)


@pytest.mark.parametrize(
    "row",
    [
        {"a": '"x": 1, "x": 2', "b": 'say "why": so'},
        {"a\\": "\\", "b": [{"c": 1}, {"c": 2}]},
        {'q": ': '": ":" "', "": {"": ""}},
    ],
)
def test_what_only_looks_like_a_key_is_text(tmp_path, row):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert rows_of(path) == [row]


def test_a_parquet_column_given_twice_is_refused(tmp_path):
    table = pa.table([pa.array([1]), pa.array([2])], names=["stars", "stars"])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"rows\.parquet: the header has \['stars'\] more than"):
        rows_of(tmp_path / "rows.parquet")


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "jsonl.gz", "csv.gz"])
def test_a_byte_order_mark_is_no_content(tmp_path, kind):
    text = {"jsonl": json.dumps(ROW) + "\n", "json": json.dumps([ROW]), "csv": CSV}
    data = b"\xef\xbb\xbf" + text[kind.removesuffix(".gz")].encode()
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(gzip.compress(data) if kind.endswith(".gz") else data)
    assert list(rows_of(path)[0]) == list(ROW)


# --- Filters ---------------------------------------------------------------------------------


def kept(tmp_path, rows: list[dict], keep: dict, kind: str = "jsonl") -> tuple[list, Tally]:
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        cells = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(cells) + "\n")
    table = TableConfig.model_validate(
        {
            "name": "mine", "format": "table", "train": {"path": str(path)}, "keep": keep,
            "prompt": "prompt", "response": "response",
            "attributes": {"stars": {"column": "stars", "from": [1, 5]}},
        }
    )  # fmt: skip
    tally = Tally()
    found = list(read_table(read_placed_rows(table.train), tally, table, table_scales(table)))
    return found, tally


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("stored", [int, str])
def test_ids_of_64_bits_are_told_apart(tmp_path, kind, quoted, stored):
    rows = [ROW | {"rater": stored(2**53 + i), "response": f"{i}"} for i in range(3)]
    wanted = str(2**53 + 1) if quoted else 2**53 + 1
    found, _ = kept(tmp_path, rows, {"rater": [wanted]}, kind)
    assert [rated.response for rated in found] == ["1"]


@pytest.mark.parametrize("value", ["2.0", 2, "2", 2.0, "+2", " 2 "])
def test_numbers_are_the_same_in_all_spellings(tmp_path, value):
    rows = [ROW | {"split": 1}, ROW | {"split": 2}]
    assert len(kept(tmp_path, rows, {"split": [value]})[0]) == 1


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_false_for_a_column_of_text_is_norwegian(tmp_path, kind):
    rows = [ROW | {"language": "no"}, ROW | {"language": "de"}]
    with pytest.raises(InputError, match=r"keep\.language\).*quote them \(\"no\"\)"):
        kept(tmp_path, rows, {"language": [False, "de"]}, kind)


def test_truth_values_are_still_told_apart(tmp_path, caplog):
    rows = [ROW | {"checked": True}, ROW | {"checked": True}]
    assert kept(tmp_path, rows, {"checked": [False]})[0] == []
    assert "no row has False in column 'checked'" in caplog.text
    assert len(kept(tmp_path, rows, {"checked": ["true"]})[0]) == 2


def test_an_allowed_value_that_no_row_has_is_named(tmp_path, caplog):
    rows = [ROW | {"language": "de"}]
    assert len(kept(tmp_path, rows, {"language": ["de", "english"]})[0]) == 1
    assert "no row has 'english' in column 'language'" in caplog.text


def test_ratings_of_several_raters_are_kept_and_counted(tmp_path):
    rows = [ROW | {"stars": stars} for stars in (1, 5, 3)] + [ROW | {"response": "Other."}]
    found, tally = kept(tmp_path, rows, {})
    assert [rated.attributes["stars"] for rated in found] == [0, 100, 50, 50]
    assert "2 of a response that has another rating" in str(tally)


def test_a_number_of_any_length_is_a_number_or_named(tmp_path):
    with pytest.raises(InputError, match="not a number"):
        kept(tmp_path, [ROW | {"stars": 10**400}], {})
