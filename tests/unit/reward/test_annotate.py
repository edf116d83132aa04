"""Which original responses are scored."""

from dpa.artefacts.jsonl import write_jsonl
from dpa.records import Prompt, Rating
from dpa.reward.annotate import original_responses


def test_unseen_prompts_have_no_originals_to_miss(tmp_path):
    """They are not counted as prompts that lack responses, however many there are."""
    prompts = [
        Prompt("p0", "A?", "x"),
        *(Prompt(f"u{i}", "B?", "x", unseen=True) for i in range(9)),
    ]
    rating = {"prompt_id": "p0", "prompt": "A?", "response": "a", "attributes": {"h": 50.0}}
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    write_jsonl(tmp_path / "ratings.jsonl", [Rating(**rating, dataset="uf", split="train")])
    files = tmp_path / "ratings.jsonl", [tmp_path / "prompts.jsonl"]
    [chunk] = original_responses(*files, "uf", 0, 1)
    assert [[rating.response for _, rating in group] for group in chunk] == [["a"]]
