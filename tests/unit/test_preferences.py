"""Preference pairs from ratings."""

from dpa.preferences import preference_pairs
from dpa.provenance import Losses
from dpa.records import Rating, write_jsonl


def rating(prompt, response, dataset="uf", **attributes):
    return Rating(
        prompt_id=prompt, prompt=prompt, response=response, attributes=attributes, dataset=dataset,
        split="train",
    )  # fmt: skip


def test_pairs_by_hand(tmp_path):
    path = tmp_path / "ratings.jsonl"
    write_jsonl(
        path,
        [
            rating("p", "good", a=90.0, b=70.0),
            rating("p", "tied", a=80.0, b=80.0),
            rating("p", "bad", a=10.0),
            rating("p", "other scale", dataset="hs", c=100.0),
            rating("q", "one", a=50.0),
            rating("q", "two", a=50.0),
            rating("unwanted", "x", a=1.0),
        ],
    )
    losses = Losses()
    pairs = list(preference_pairs(path, "uf", {"p", "q"}, 0, losses))
    assert pairs == [([{"role": "user", "content": "p"}], "good", "bad")]
    assert losses.dropped == {"no two different ratings": 1}


def test_the_rejected_one_is_a_seeded_choice(tmp_path):
    path = tmp_path / "ratings.jsonl"
    write_jsonl(path, [rating(f"p{i}", f"{j}", a=float(j)) for i in range(40) for j in range(4)])
    wanted = {f"p{i}" for i in range(40)}
    first = list(preference_pairs(path, "uf", wanted, 0, Losses()))
    assert first == list(preference_pairs(path, "uf", wanted, 0, Losses()))
    assert {chosen for _, chosen, _ in first} == {"3"}
    assert {rejected for *_, rejected in first} == {"0", "1", "2"}
    assert first != list(preference_pairs(path, "uf", wanted, 1, Losses()))
