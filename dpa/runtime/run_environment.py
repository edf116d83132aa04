"""What concerns a whole run, on its way to the run's jobs: environment variables.

As rule parameters they would make every rule rerun whenever any key of the configuration changes.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dpa.runtime.log import log
from dpa.runtime.outer_environment import remove_outer_settings, removed_message

#: The clone: where this code, config.yaml and the experiments lie.
CLONE = Path(__file__).resolve().parents[2]
#: Where the answers of models that are asked over HTTP are kept, across runs and experiments.
ANSWERS = Path("results/judgements")

PREFIX = "DPA_"


@dataclass(frozen=True)
class RunEnvironment:
    """Each field is a variable, `DPA_CONFIG_HASH` and so on; unset ones have their default here."""

    config_hash: str | None = None
    """For sidecars, as are the base seed and the commits of hub repositories."""
    base_seed: str | None = None
    commits: Mapping[str, str] = field(default_factory=dict)
    max_dropped_fraction: float = 1.0
    """No limit for a script that is run by hand."""
    max_truncated_fraction: float = 1.0
    trust_remote_code: tuple[str, ...] = ()
    """Models (organisation/name@commit) whose own code may run."""
    hang_minutes: float = 0.0
    """Minutes without progress after which a job ends itself; 0: never."""
    gpu: bool = False
    """Whether jobs with a model must have a GPU (compute.gpu)."""
    report_to: tuple[str, ...] = ()
    """Experiment trackers of all trainings (trainer.report_to)."""

    def announce(self) -> None:
        """Hand it to all jobs that are started from here, which find the clone's code, too.

        They do not get what an outer shell may not decide, which is named once. PYTHONSAFEPATH
        keeps a folder `scripts` of the working directory from standing in for ours.
        """
        if removed := remove_outer_settings(os.environ):
            log.warning(removed_message(removed))
        for name, value in _variables(self).items():
            os.environ[name] = value
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if str(CLONE) not in paths:
            os.environ["PYTHONPATH"] = os.pathsep.join([str(CLONE), *filter(None, paths)])
        os.environ["PYTHONSAFEPATH"] = "1"

    @classmethod
    def read(cls) -> "RunEnvironment":
        """What the run that this process is a job of has announced."""
        found: dict[str, Any] = {}
        for item in fields(cls):
            text = os.environ.get(PREFIX + item.name.upper())
            if text is None:
                continue
            if item.name == "commits":
                found[item.name] = json.loads(text)
            elif isinstance(item.default, tuple):
                found[item.name] = tuple(text.split())
            elif isinstance(item.default, bool):
                found[item.name] = text == str(True)
            elif isinstance(item.default, float):
                found[item.name] = float(text or item.default)
            else:
                found[item.name] = text
        return cls(**found)


def _variables(environment: RunEnvironment) -> dict[str, str]:
    """The fields as text; what is not known has no variable."""
    values = {item.name: getattr(environment, item.name) for item in fields(environment)}
    return {PREFIX + n.upper(): _text(v) for n, v in values.items() if v is not None}


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(value)
    return json.dumps(dict(value)) if isinstance(value, Mapping) else str(value)
