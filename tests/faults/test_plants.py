"""The list of planted bugs fits the code as it is; `python -m tests.faults.plants` plants them."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT
from tests.faults.plants import PLANTS, Plant, fits


@pytest.mark.parametrize("plant", PLANTS, ids=[plant.name for plant in PLANTS])
def test_a_plant_still_fits(plant: Plant) -> None:
    assert fits(plant), f"{plant.file} does not hold that text once"
    assert (ROOT / plant.test.split()[0]).is_file()


def test_the_promises_show_every_plant() -> None:
    shown = (ROOT / "docs/explanation/guarantees.md").read_text()
    rows = [f"| {one.promise} | {one.name} | `{one.test}` |" for one in PLANTS]
    assert not [row for row in rows if row not in shown]
