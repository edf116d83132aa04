"""Tables that are read as a whole."""

import os

import pandas as pd
import pytest

from dpa.artefacts import frames
from dpa.artefacts.frames import read_csv_table, read_parquet_table
from dpa.errors import InputError

TABLE = pd.DataFrame({"method": ["dpa", "sft"], "n": [1, 2]})


@pytest.fixture(params=["csv", "parquet"])
def table(request, tmp_path):
    """What reads a table, and a file of it."""
    path = tmp_path / f"table.{request.param}"
    if request.param == "csv":
        TABLE.to_csv(path, index=False)
        return read_csv_table, path
    TABLE.to_parquet(path)
    return read_parquet_table, path


def test_a_table_is_read(table):
    read, path = table
    pd.testing.assert_frame_equal(read(path, needed=["n"]), TABLE)


def refused(read, path, *fragments: str, **options) -> None:
    with pytest.raises(InputError) as caught:
        read(path, "make it again", **options)
    for fragment in (str(path), "; make it again", *fragments):
        assert fragment in str(caught.value)
    assert str(caught.value).count(str(path)) == 1


def test_what_is_no_table_is_refused_with_the_remedy(table):
    read, path = table
    refused(read, path, "no column ['seed']", needed=["method", "seed"])
    for content in (b"", b'a,b\n"1,2\n', b"a\n1\n2,3\n", b"PAR1\0PAR1", b"\xff\n\xff"):
        path.write_bytes(content)
        refused(read, path, needed=["method"])
    path.unlink()
    refused(read, path, "no such file")
    os.mkfifo(path)
    refused(read, path, "is a FIFO")


def test_a_small_file_of_a_large_table_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "large.parquet"
    pd.DataFrame({"a": ["x" * 3_000_000]}).to_parquet(path, compression="zstd")
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(frames, "MAX_LIST", 1 << 20)
    refused(read_parquet_table, path, "too much for such a file")
