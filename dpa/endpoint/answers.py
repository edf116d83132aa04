"""What a model that is asked over HTTP has answered, each answer kept the moment it arrives.

A question that was answered once, in whatever run, is never asked (or paid for) again, and a killed
run loses at most the answers that were under way.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dpa.artefacts.outputs import replace_text
from dpa.errors import InputError
from dpa.runtime.log import log
from dpa.runtime.reading import read_json_object

Messages = list[dict[str, str]]


class AnswerStore:
    """One JSON file per answer, named by a hash of the model and what it was asked.

    `is_answer` says whether a response is one. `settings` are fields of the request that decide
    what is answered, for who asks with more than one choice of them.
    """

    def __init__(self, folder: Path, is_answer: Callable[[Any], bool]) -> None:
        self.folder, self.is_answer = folder, is_answer

    def path(
        self, model: str, messages: Messages, settings: Mapping[str, Any] | None = None
    ) -> Path:
        asked: list[Any] = [model, messages, *([] if settings is None else [settings])]
        digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        return self.folder / re.sub(r"[^A-Za-z0-9._-]+", "_", model) / digest[:2] / f"{digest}.json"

    def has(
        self, model: str, messages: Messages, settings: Mapping[str, Any] | None = None
    ) -> bool:
        return self.get(model, messages, settings) is not None

    def get(
        self, model: str, messages: Messages, settings: Mapping[str, Any] | None = None
    ) -> dict | None:
        """The response that was kept; None where there is none that is an answer: it is asked for
        again, and kept in the place of what is there."""
        path = self.path(model, messages, settings)
        if not path.exists():
            return None
        try:
            response = read_json_object(path).get("response")
        except InputError as error:
            log.warning("%s; asked for again", error)
            return None
        if not self.is_answer(response):
            log.warning("%s: holds no answer; asked for again", path)
            return None
        return response

    def put(
        self,
        model: str,
        messages: Messages,
        response: dict,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        asked: dict[str, Any] = {"model": model, "messages": messages}
        asked |= {} if settings is None else {"settings": settings}
        content = json.dumps(asked | {"response": response}, ensure_ascii=False)
        replace_text(self.path(model, messages, settings), content + "\n")
