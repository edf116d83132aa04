"""Models to start trainings from."""

import pytest


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, str]:
    """Folders of tiny models by architecture."""
    from tests.support.tiny_models import make_causal_lm

    folder = tmp_path_factory.mktemp("bases")
    return {name: make_causal_lm(folder / name, name) for name in ("mistral", "gemma2", "llama")}
