import numpy as np

from mmdet_lesion.synthesis.organs import paint_abdomen


class Recorder:
    """Records what is painted instead of painting it."""

    def __init__(self):
        self.ellipsoids, self.chains = [], []

    def ellipsoid(self, center, radii, *args, **kwargs):
        self.ellipsoids.append((np.array(center), tuple(radii)))

    def rods(self, points, radius, *args, **kwargs):
        self.chains.append((points, radius))


def test_adrenals_move_with_the_kidneys():
    for seed in range(3):
        canvas = Recorder()
        paint_abdomen(canvas, np.random.default_rng(seed), enhancement=0.5)
        kidneys = [center for center, radii in canvas.ellipsoids if radii == (34, 36, 62)]
        adrenals = [points for points, radius in canvas.chains if radius == 3.0]
        assert len(kidneys) == len(adrenals) == 2
        for kidney, adrenal in zip(kidneys, adrenals):
            np.testing.assert_allclose(adrenal[:, 2] - kidney[2], [-62, -56])
            assert abs(kidney[2] - 356) <= 14
