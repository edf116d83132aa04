"""A finished run of every method, which several test files look at."""

import pytest

from tests.conftest import made_once
from tests.support.methods_run import MethodsRun


@pytest.fixture(scope="session")
def methods_run(tmp_path_factory) -> MethodsRun:
    """A finished run with keys in its environment; not to be changed."""
    return MethodsRun.load(made_once(tmp_path_factory, "methods", MethodsRun.build))
