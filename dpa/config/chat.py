"""How the models' chats become tokens."""

from datetime import date
from typing import Literal

from dpa.config.base import Section


class ModelsConfig(Section):
    add_bos: bool | Literal["auto"]
    chat_template_date: date
