"""The mistakes that `make mutants` plants are of today's code: it would end at the first that is not."""

import pytest

from tests.helpers.runs import ROOT
from tests.mutants import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file}: {m.old}")
def test_a_mistake_has_its_place_and_its_test(mutant: Mutant) -> None:
    file, _, name = mutant.tests.partition("::")
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert f"def {name.partition('[')[0]}" in (ROOT / file).read_text(encoding="utf-8")
