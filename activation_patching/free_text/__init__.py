"""Free text under an intervention: what the edited model says, and whether it is what its first token says."""

FILE = "generated.csv"
