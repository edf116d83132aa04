"""A finished miniature run to break, and the numbers that the suite ends with."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import made_once
from tests.support.finished_run import FinishedRun
from tests.support.rule_commands import FRONT, METHOD

#: Four chunks of sampling in each shard. Reward Soup needs the experts of RSF.
OVERLAY = """
methods: [dpa, sft, rsf, reward_soup]
sampling: {prompts_per_chunk: 1}
alpacaeval: null
rewardbench: null
"""


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> FinishedRun:
    """The undisturbed run, from raw data to figure 4; not to be changed."""

    def make(folder: Path) -> None:
        scripts = {*METHOD, *FRONT, "measure_divergence"}
        FinishedRun.build(folder, OVERLAY, lambda command: command.script in scripts)

    return FinishedRun.load(made_once(tmp_path_factory, "undisturbed", make))


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
            f"kills survived: {total['kills']}, other faults: {total['faults']}, spoiled inputs: "
            f"{total['inputs']:,}, bytes compared: {total['bytes']:,}, "
            f"records lost: {total['lost']}"
        )
