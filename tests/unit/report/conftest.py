"""Figures of all tests are drawn in the style of config.yaml."""

import pytest

from dpa.report.figures.style import drawn_in
from tests.support.figure_data import STYLE


@pytest.fixture(autouse=True)
def default_style():
    with drawn_in(STYLE):
        yield
