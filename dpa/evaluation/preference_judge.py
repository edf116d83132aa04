"""The preference judge: a sequence-classification model with one output, by its chat template."""

from collections.abc import Sequence
from typing import Self

from dpa.config.chat import ModelsConfig
from dpa.errors import InputError
from dpa.models import AnyModel
from dpa.reward.chat_scorer import ChatScorer
from dpa.text.prompts import Conversation


class PreferenceJudge(ChatScorer):
    """A Bradley-Terry reward model: the higher of two scores wins."""

    @classmethod
    def load(
        cls, model: AnyModel, models: ModelsConfig | None = None, key: str = "rewardbench.judge"
    ) -> Self:
        """As ChatScorer. Raises InputError when it is no scalar judge."""
        judge = super().load(model, models, key)
        if (found := judge.model.config.num_labels) != 1:
            raise InputError(f"{key}: {judge.name} has {found} outputs; a judge has one")
        return judge

    def scores(self, pairs: Sequence[tuple[Conversation, str]]) -> list[float]:
        """A score for each (prompt, response), the same whatever is scored with it."""
        return [score for [score] in self.outputs(pairs)]
