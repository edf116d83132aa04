"""What a training leaves in its policy's folder besides the model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpa.serving.card import write_card
from dpa.serving.steering import PolicySteering


def furnish_policy(steering: PolicySteering, folder: Path, details: Mapping[str, Any]) -> None:
    """Make a saved policy's folder say by itself what it is: steering.json and templates, and for
    people a card. `details` are those of its sidecar."""
    steering.furnish(folder, details)
    write_card(folder)
