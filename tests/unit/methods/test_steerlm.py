"""The training data of SteerLM."""

from dpa.artefacts.jsonl import write_jsonl
from dpa.artefacts.row_counts import RowCounts
from dpa.methods.steerlm import annotated_conversations
from dpa.records import Annotation


def test_responses_to_other_prompts_are_counted(tmp_path):
    path = tmp_path / "0.jsonl"
    write_jsonl(
        path,
        [
            Annotation(prompt_id=i, prompt="?", response="r", attributes={}, rewards=[61.4, 7.0],
                       split="train")
            for i in ("p", "other", "p")
        ],
    )  # fmt: skip
    row_counts = RowCounts()
    found = list(annotated_conversations([path], {"p"}, ["helpfulness", "verbosity"], row_counts))
    assert [turns[0]["role"] for turns in found] == ["system", "system"]
    assert "helpfulness=61, verbosity=7" in found[0][0]["content"]
    # The two that are kept are counted by whoever trains on them.
    assert (row_counts.read, row_counts.dropped) == (1, {"to other prompts": 1})
    row_counts.check(0.0, "as asked for")
