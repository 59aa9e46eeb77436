import numpy as np
import pytest

from mmdet_lesion.structures import Geometry
from mmdet_lesion.synthesis.planting import Appearance, PlantedLesion
from mmdet_lesion.synthesis.planting.contact_sheet import TILE, lesion_row, sheet_of_rows


@pytest.mark.parametrize("start", [(4, 0, 0), (4, 20, 22)])
def test_a_row_shows_the_lesion(start):
    before = np.full((12, 40, 40), -850, np.int16)
    after = before.copy()
    z, y, x = start
    after[z : z + 4, y : y + 8, x : x + 8] = 40
    lesion = PlantedLesion(
        1, "lung", Appearance("solid", 40.0), "ball", start, np.ones((4, 8, 8), bool),
        Geometry(before.shape, (1.0, 1.0, 2.0)), 890.0,
    )  # fmt: skip
    row = lesion_row(before, after, lesion)
    assert row.shape == (TILE, 3 * TILE, 3)
    middle = TILE // 2
    first, second, third = (row[:, i * TILE : (i + 1) * TILE] for i in range(3))
    assert first[middle, middle].max() < 100 and second[middle, middle].min() > 200
    # The outline is colored.
    assert (np.ptp(third.astype(int), axis=2) > 100).sum() > 50 > np.ptp(second, axis=2).max()


def test_sheets_are_limited():
    rows = [np.full((TILE, 3 * TILE, 3), index % 256, np.uint8) for index in range(300)]
    assert sheet_of_rows(rows).shape == (20 * TILE, 12 * TILE, 3)
    assert sheet_of_rows(rows[:3]).shape == (TILE, 9 * TILE, 3)
    assert sheet_of_rows(rows[:6]).shape == (2 * TILE, 12 * TILE, 3)
