"""A finished miniature run to break, and the numbers that the suite ends with."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.laboratory import Laboratory
from tests.stages import FRONT, METHOD

#: Four chunks of sampling in each shard. Reward Soup needs the experts of RSF.
OVERLAY = """
methods: [dpa, sft, rsf, reward_soup]
sampling: {prompts_per_chunk: 1}
"""


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory) -> Iterator[Laboratory]:
    """The undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    laboratory = Laboratory.build(folder, OVERLAY, (*METHOD, *FRONT))
    yield laboratory
    laboratory.server.close()


@pytest.fixture
def count(record_property) -> Callable[..., None]:
    """Add to the numbers that are printed at the end: `count(kills=1, bytes=123)`."""

    def add(**numbers: int) -> None:
        for name, number in numbers.items():
            record_property(f"faults:{name}", number)

    return add


def pytest_terminal_summary(terminalreporter) -> None:
    total: Counter[str] = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, number in report.user_properties:
            if str(name).startswith("faults:"):
                total[name.removeprefix("faults:")] += number
    if total:
        terminalreporter.write_line(
            f"kills survived: {total['kills']}, other faults: {total['faults']}, bytes compared: "
            f"{total['bytes']:,}, records lost: {total['lost']}"
        )
