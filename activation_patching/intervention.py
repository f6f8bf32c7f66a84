"""The interventions of this experiment by name, and where they act."""

from dataclasses import dataclass

from common.patching import ENGINES

INTERVENTIONS = ("span", "exchange", "scale", "knockout", "components")
POSITIONS = ("span", "last")


@dataclass(frozen=True)
class InterventionSpec:
    """`intervention` at the positions `at`, with subspaces of `rank`; `align` says what becomes of a donor's span."""

    intervention: str
    at: str
    rank: int | None
    align: str

    @property
    def whole_span(self) -> bool:
        return self.intervention == "span"

    @property
    def learns(self) -> bool:
        """Tell whether subspaces of the states are learned first."""
        return self.intervention == "exchange"

    @property
    def engines(self) -> tuple[str, ...]:
        """The ways of patching that serve, fastest first.

        Splice puts in a donor's whole span, whatever its length, or what becomes of the last position; it has no row for a span
        of which something stays.
        """
        if self.at == "last":
            return ENGINES[:1]
        return ENGINES if self.whole_span and self.align == "splice" else ENGINES[1:]
