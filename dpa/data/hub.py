"""Data sets of the hub, at the commit that was asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpa.config.base import is_commit
from dpa.config.data import SourceConfig, describe
from dpa.errors import InputError

Row = dict[str, Any]


#: A row and its place.
PlacedRow = tuple[str, Row]


def hub_rows(source: SourceConfig) -> Iterator[PlacedRow]:
    import datasets

    try:
        builder = datasets.load_dataset_builder(source.path, revision=source.revision)
        _check_commit(source, builder.hash)
        builder.download_and_prepare()
        rows = builder.as_dataset(split=source.split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        # datasets wraps what went wrong in "An error occurred while generating the dataset".
        reason = " ".join(f"{error} {error.__cause__ or ''}".split())
        raise InputError(
            f"{describe(source)}: cannot load split {source.split!r} from the hub: {reason}; check "
            "path, revision and split, and that the hub can be reached (`hf auth login` for a "
            "gated data set; download it beforehand for a machine without internet)"
        ) from None
    for number, row in enumerate(rows, 1):
        yield f"{describe(source)} {source.split}: row {number}", row


def _check_commit(source: SourceConfig, found: str | None) -> None:
    """Refuse another commit than the one asked for: without the hub, datasets takes any it has."""
    asked = source.revision or ""
    if is_commit(asked) and found != asked and not Path(source.path).is_dir():
        raise InputError(
            f"{describe(source)}: the hub cannot be reached, and the cache has commit {found}; "
            "load the data set once where the hub can be reached"
        )


def alpacaeval_file(source: SourceConfig) -> Path:
    """The file `<split>.json` of a hub data set, in the hub's cache.

    The data set's own loader is a script, which current versions of `datasets` do not run.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(
            huggingface_hub.hf_hub_download(
                source.path, f"{source.split}.json", repo_type="dataset", revision=source.revision
            )
        )
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise InputError(
            f"{describe(source)}: cannot get {source.split}.json from the hub: {error}; for a "
            "machine without internet download it and name the file in alpacaeval.reference.path"
        ) from None
