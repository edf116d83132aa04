"""A section of the configuration that no command line could hold goes through a real rule."""

import re

import pytest

from tests.support.own_data import RATINGS, TARGET, add_own_data, rated
from tests.support.snakemake_runs import copy_repository, planned_jobs, snakemake

pytestmark = pytest.mark.slow

#: Linux limits an argument to this many bytes.
LIMIT = 128 * 1024
ROWS = 20_010
#: Among them what YAML would read otherwise than JSON.
KEPT = [f"row-{number:06}" for number in range(5, 20_003)] + ["😀", "1e-05"]


def test_a_filter_of_20000_ids_keeps_exactly_those(tmp_path):
    folder = add_own_data(copy_repository(tmp_path), ROWS, keep={"id": KEPT})
    text = (folder / RATINGS).read_text()
    for number, other in ((20_003, "😀"), (20_004, "1e-05")):
        text = text.replace(f"row-{number:06}", other)
    (folder / RATINGS).write_text(text)
    assert sum(map(len, KEPT)) > LIMIT
    target = ("--config", "experiment=mine.yaml", "--", TARGET)
    printed = snakemake(folder, "--cores", "1", "--printshellcmds", *target).stdout
    assert "--data @results/.stamps/sections/" in printed
    assert rated(folder) == [f"Is it {number}?" for number in range(5, 20_005)]
    assert planned_jobs(folder, *target) == {}
    # Another filter is another command.
    path = folder / "mine.yaml"
    path.write_text(re.sub(r"^ *- row-000005\n", "", path.read_text(), flags=re.MULTILINE))
    assert planned_jobs(folder, *target) == {"prepare_data": 1}
