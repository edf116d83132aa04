"""The scales on which the public data sets rate, and where their ratings lie on 0-100."""

from typing import NamedTuple

from dpa.config.data import FORMAT_ATTRIBUTES


class NativeScale(NamedTuple):
    """The ratings from `lowest` to `highest`; s is mapped to `factor` s + `offset`."""

    lowest: int
    highest: int
    factor: float
    offset: float

    def points(self, rating: float) -> float:
        """A rating on 0-100."""
        return self.factor * rating + self.offset

    @property
    def levels(self) -> int:
        return self.highest - self.lowest + 1


#: HelpSteer's five integers (the published reward model's scale; its inverse is (r - 10) / 20),
#: UltraFeedback's aspects and its overall_score, BeaverTails' is_safe. Points are the midpoints of
#: five and ten bins, as for HelpSteer (ours); of is_safe 0 and 100.
HELPSTEER_SCALE = NativeScale(0, 4, 20, 10)
ASPECT_SCALE = NativeScale(1, 5, 20, -10)
OVERALL_SCALE = NativeScale(1, 10, 10, -5)
SAFETY_SCALE = NativeScale(0, 1, 100, 0)
NATIVE_SCALES = {
    **dict.fromkeys(FORMAT_ATTRIBUTES["helpsteer"], HELPSTEER_SCALE),
    **dict.fromkeys(FORMAT_ATTRIBUTES["ultrafeedback"], ASPECT_SCALE),
    "ultrafeedback-overall_score": OVERALL_SCALE,
    **dict.fromkeys(FORMAT_ATTRIBUTES["beavertails"], SAFETY_SCALE),
}
