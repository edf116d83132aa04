"""Tables of the pipeline, read as a whole: regular files, with the columns that are needed."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpa.errors import InputError
from dpa.runtime.reading import MAX_LIST, open_regular

if TYPE_CHECKING:
    import pandas as pd


#: What helps with a table that a rule makes.
RERUN = "rerun the rule that makes it"
#: What helps with one of results/published/.
RESTORE = "restore the repository's own"


def read_csv_table(
    path: Path, remedy: str = RERUN, needed: Collection[str] = (), **options: Any
) -> "pd.DataFrame":
    """A CSV file, with pandas' `options`.

    Raises InputError, which ends with the `remedy`, when it cannot be read, or lacks a `needed`
    column.
    """
    import pandas as pd

    with _readable(path, remedy), open_regular(path) as file:
        table = pd.read_csv(file, **options)
    _check_columns(path, table, needed, remedy)
    return table


def read_parquet_table(
    path: Path, remedy: str = RERUN, needed: Collection[str] = ()
) -> "pd.DataFrame":
    """A parquet file. Raises InputError as read_csv_table, and when it would decompress to more
    than reading.MAX_LIST bytes."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    with (
        _readable(path, remedy, ArrowException),
        open_regular(path) as opened,
        ParquetFile(opened) as file,
    ):
        groups = range(file.metadata.num_row_groups)
        size = sum(file.metadata.row_group(group).total_byte_size for group in groups)
        if size > MAX_LIST:
            raise InputError(f"{path}: {size >> 20} MiB, too much for such a file")
        table = file.read().to_pandas()
    _check_columns(path, table, needed, remedy)
    return table


@contextmanager
def _readable(path: Path, remedy: str, *more: Any) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{error}; {remedy}") from None
    except (OSError, ValueError, TypeError, KeyError, OverflowError, *more) as error:
        raise InputError(f"{path}: {error}; {remedy}") from None


def _check_columns(path: Path, table: "pd.DataFrame", needed: Collection[str], remedy: str) -> None:
    if missing := sorted(set(needed) - set(table.columns)):
        raise InputError(f"{path}: no column {missing}; {remedy}")
