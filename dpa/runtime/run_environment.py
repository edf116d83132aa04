"""How a run tells its jobs what concerns all of them: environment variables.

As rule parameters they would make every rule rerun whenever any key of the configuration changes.
"""

import json
import os
from collections.abc import Iterable

#: How a run tells its jobs what to write into sidecars. Environment variables, because as rule
#: parameters they would make every rule rerun whenever any key of the configuration changes.
CONFIG_HASH, BASE_SEED = "DPA_CONFIG_HASH", "DPA_BASE_SEED"


COMMITS = "DPA_COMMITS"


#: In the same way limits and the list of trusted models, which change no result.
LIMITS = {
    "max_dropped_fraction": "DPA_MAX_DROPPED_FRACTION",
    "max_truncated_fraction": "DPA_MAX_TRUNCATED_FRACTION",
}


TRUSTED = "DPA_TRUST_REMOTE_CODE"


def announce_run(
    config_hash: str,
    seed: int | list[int],
    commits: dict[str, str] | None = None,
    *,
    limits: dict[str, float],
    trusted: Iterable[str],
) -> None:
    """Hand what concerns the whole run to all jobs started from here.

    For sidecars the config hash, the base seed, and the commits of the hub repositories it uses.
    """
    os.environ[CONFIG_HASH] = config_hash
    os.environ[BASE_SEED] = str(seed)
    os.environ[COMMITS] = json.dumps(commits or {})
    for name, variable in LIMITS.items():
        os.environ[variable] = str(limits[name])
    os.environ[TRUSTED] = " ".join(trusted)


def limit_of(name: str) -> float:
    """A limit of the run; none for a script that is run by hand."""
    return float(os.environ.get(LIMITS[name], 1))
