"""Tests of P3D FROC on published files."""

import time

import numpy as np
import pytest

from mmdet_lesion.io import read_ground_truth

from ...nested import p3d_froc
from .. import published


def detections_over(truth, seed=0, tracklets=106):
    """Return about ``tracklets`` tracklets per volume: jittered lesions and random boxes."""
    generator = np.random.default_rng(seed)
    found = {}
    for name, slices in truth.items():
        lesions = [(z, row[:4]) for z, rows in slices.items() for row in rows]
        found[name] = []
        for _ in range(tracklets):
            if lesions and generator.random() < 0.1:
                z, box = lesions[generator.integers(len(lesions))]
                box = box + generator.normal(0, 4, 4)
            else:
                z = int(generator.integers(0, 60))
                corner = generator.uniform(50, 400, 2)
                box = np.concatenate([corner, corner + generator.uniform(10, 60, 2)])
            first = max(0, z - int(generator.integers(0, 3)))
            last = z + int(generator.integers(0, 3))
            scores = generator.random(last - first + 1)
            found[name].append(
                [(at, [*box.tolist(), float(s)]) for at, s in zip(range(first, last + 1), scores)]
            )
    return found


@pytest.mark.slow
def test_published_revised_test_1071(lesion_data):
    truth = read_ground_truth(lesion_data / "deeplesion" / "harvester" / "Revised-Test1071.pkl")
    found = detections_over(truth)
    assert sum(map(len, found.values())) > 100_000
    begin = time.perf_counter()
    result = p3d_froc(found, truth)
    fast = time.perf_counter() - begin
    begin = time.perf_counter()
    expected = published.p3d(found, truth, result.fp_rates)
    slow = time.perf_counter() - begin
    print(f"{sum(map(len, found.values()))} tracklets: {fast:.3f} s, loop {slow:.2f} s")
    np.testing.assert_allclose(result.ap, expected["ap"], atol=1e-9)
    np.testing.assert_allclose(result.sensitivity, expected["values"], atol=1e-9)
