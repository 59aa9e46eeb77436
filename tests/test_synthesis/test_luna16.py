import json
from dataclasses import replace

import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.metaimage import metaimage_data_file, read_metaimage
from mmdet_lesion.synthesis import Luna16PhantomConfig, make_luna16, render_scan

from .test_deeplesion import digests

TINY = Luna16PhantomConfig(
    volumes=5,
    seed=3,
    size=40,
    pixel=(2.0, 2.6),
    interval=(2.2, 3.0),
    stature=(0.25, 0.3),
    nodules=(1, 2),
    diameter=(7.0, 14.0),
    findings=(1, 3),
    vessels=3,
    flipped=0.5,
)
HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    out = tmp_path_factory.mktemp("luna16") / "raw"
    make_luna16(out, TINY, progress=False)
    return out


def test_layout(raw):
    uids = (raw / "seriesuids.csv").read_text().splitlines()
    scans = [render_scan(index, TINY) for index in range(5)]
    assert uids == sorted(scan.uid for scan in scans)
    for index, scan in enumerate(scans):
        volume = read_metaimage(raw / f"subset{index}" / f"{scan.uid}.mhd")
        np.testing.assert_array_equal(volume.array, scan.volume.array)
        assert volume.direction == scan.volume.direction
        assert all(2.0 <= s <= 3.0 for s in volume.spacing)
    for name, lists in (("annotations", "nodules"), ("annotations_excluded", "findings")):
        lines = (raw / f"{name}.csv").read_text().splitlines()
        assert lines[0] == HEADER
        found = sorted((line.split(",")[0], float(line.split(",")[1])) for line in lines[1:])
        made = sorted((s.uid, f.center[0]) for s in scans for f in getattr(s, lists))
        assert [uid for uid, _ in found] == [uid for uid, _ in made]
        np.testing.assert_allclose([x for _, x in found], [x for _, x in made], atol=1e-6)
    for line in (raw / "annotations_excluded.csv").read_text().splitlines()[1:]:
        diameter = float(line.split(",")[4])
        assert diameter == -1 or 3 <= diameter <= 7


def test_nodules_lie_at_their_world_positions():
    seen = set()
    config = replace(
        TINY,
        size=64,
        stature=(0.4, 0.45),
        flipped=0.7,
        diameter=(7.0, 10.0),
        noise=0.0,
        subsolid=0.0,
        juxtapleural=0.0,
        vessels=0,
        findings=(0, 0),
    )
    for index in range(12):
        scan = render_scan(index, config)
        seen.add(tuple(np.diag(np.reshape(scan.volume.direction, (3, 3)))))
        for nodule in scan.nodules:
            voxel = np.floor(scan.volume.geometry.points_to_voxels(nodule.center)).astype(int)[0]
            assert scan.volume.array[tuple(voxel[::-1])] > -400
            # Just beyond the radius there is lung in most directions.
            steps = np.vstack([np.eye(3), -np.eye(3)]) * (0.5 * nodule.diameter + 3)
            around = np.floor(scan.volume.geometry.points_to_voxels(nodule.center + steps)).astype(
                int
            )
            hu = scan.volume.array[tuple(around.T[::-1])]
            assert (hu < -450).sum() >= 4
    assert {(1, 1), (-1, -1)} <= {signs[:2] for signs in seen}
    assert {signs[2] for signs in seen} == {1, -1}


def test_orientation_of_the_body():
    for index in range(6):
        scan = render_scan(index, replace(TINY, noise=0.0))
        # The heart is on the patient's left, the table behind, the liver below and on the right.
        z, y, x = np.nonzero(scan.volume.array > 70)
        bright = scan.volume.geometry.points_to_world(np.stack([x, y, z], axis=1) + 0.5)
        middle = scan.volume.geometry.points_to_world(np.array(scan.volume.shape[::-1]) / 2)[0]
        top = bright[bright[:, 2] > np.percentile(bright[:, 2], 90)]
        low = bright[bright[:, 2] < np.percentile(bright[:, 2], 10)]
        # The liver is below the bones of the shoulders.
        assert low[:, 0].mean() < middle[0] - 1
        assert abs(top[:, 0].mean() - middle[0]) < abs(low[:, 0].mean() - middle[0])
        # The spine is behind the center.
        bone = scan.volume.array > 250
        z, y, x = np.nonzero(bone)
        assert (
            scan.volume.geometry.points_to_world(np.stack([x, y, z], 1) + 0.5)[:, 1].mean()
            > middle[1]
        )


def test_padding_outside_the_field_of_view():
    scans = [render_scan(i, replace(TINY, padded=share)) for i, share in ((0, 1.0), (0, 0.0))]
    corner, other = (scan.volume.array[:, 0, 0] for scan in scans)
    assert (corner == -3024).all()
    assert (other > -1100).all()
    assert scans[0].volume.array[:, 20, 20].min() > -1100


def test_files_depend_on_the_seed_and_not_on_workers(raw, tmp_path):
    make_luna16(tmp_path / "again", TINY, workers=2, progress=False)
    assert digests(tmp_path / "again") == digests(raw)
    make_luna16(tmp_path / "other", replace(TINY, seed=4, volumes=1), progress=False)
    assert not set(digests(raw).values()) & set(digests(tmp_path / "other").values())


def test_summary_counts_kinds(raw):
    summary = json.loads((raw / "phantoms.json").read_text())["summary"]
    assert summary["scans"] == 5
    nodules = len((raw / "annotations.csv").read_text().splitlines()) - 1
    kinds = sum(summary.get(kind, 0) for kind in ("solid", "part_solid", "juxtapleural"))
    assert summary["nodules"] == nodules == kinds >= 5


def test_default_spacings():
    config = Luna16PhantomConfig(volumes=1, size=64, stature=(0.2, 1.15), nodules=(0, 0))
    volume = render_scan(0, config).volume
    assert 0.5 <= volume.spacing[0] == volume.spacing[1] <= 0.9
    assert 0.5 <= volume.spacing[2] <= 2.5


def test_other_files_are_not_overwritten_and_workers_are_checked(tmp_path, raw):
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(InputError, match="has files but no phantoms.json"):
        make_luna16(tmp_path, TINY, overwrite=True, progress=False)
    assert (tmp_path / "precious.txt").read_text() == "keep me"
    with pytest.raises(InputError, match="expected --overwrite"):
        make_luna16(raw, TINY, progress=False)
    with pytest.raises(InputError, match="workers is 0; expected at least 1"):
        make_luna16(tmp_path / "new", TINY, workers=0, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_headers_reference_the_raw_file(raw):
    for path in raw.glob("subset*/*.mhd"):
        assert metaimage_data_file(path) == path.with_suffix(".raw")
