"""Tests that the published key slices are used, and that AlignShift shifts by 2 mm."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from mmdet_lesion.converters import DeepLesionConversion
from mmdet_lesion.converters.annotation_rows import Annotation, select_annotations
from mmdet_lesion.converters.annotations import VolumeIndex, key_slice_file
from mmdet_lesion.converters.series import volume_name
from mmdet_lesion.datasets import DeepLesionDataset
from mmdet_lesion.datasets.transforms import LoadSliceStack, LoadVolumeSlices
from mmdet_lesion.io import open_volume, read_dl_info
from mmdet_lesion.models import AlignShiftConv
from mmdet_lesion.structures import Geometry
from mmdet_lesion.structures.hu_window import apply_hu_window

from ..test_converters.raw import row, write_png, write_raw

FOLDER = "000001_01_01"
#: Published intervals in mm.
INTERVALS = (1.0, 2.0, 2.5, 5.0, 10.0)
#: Gray values per mm of the ramp; the HU window below maps HU to equal gray values.
SLOPE = 4.0
WINDOW = (0, 255)


@pytest.fixture(scope="module", params=INTERVALS, ids="{:g}mm".format)
def ramp(request, tmp_path_factory):
    """A converted series whose HU increase along z, and its interval; slice 4 of 8 is the key."""
    interval = request.param
    folder = tmp_path_factory.mktemp("ramp")
    table_row = row(FOLDER, 5, spacing=(0.7, 0.7, interval), slice_range=(1, 8), split=3)
    raw = write_raw(folder / "raw", {FOLDER: range(1, 9)}, [table_row])
    for z in range(8):
        hu = np.full((24, 24), round(SLOPE * interval * (z - 4)) + 128, dtype=np.int16)
        write_png(raw / "Images_png" / FOLDER / f"{z + 1:03d}.png", hu)
    DeepLesionConversion(raw, folder / "out", spacing=(0, 0)).run(progress=False)
    return folder / "out", interval


def pipeline(loader, annotations="LoadAnnotations", **options):
    steps = [dict(type=loader, **options), dict(type=annotations, with_bbox=True)]
    steps.append(dict(type="PackLesionInputs"))
    return [{**step, "type": f"mmdet.{step['type']}"} for step in steps]


def effective_shift(packed, at):
    """Shift of the two groups of channels of one slice by AlignShift, in mm."""
    stack = packed["inputs"][None, None].expand(1, 8, -1, -1, -1)
    conv = AlignShiftConv(8, 8, 1, num_slices=stack.shape[2], bias=False)
    torch.nn.init.eye_(conv.weight.data[:, :, 0, 0])
    thickness = torch.tensor([packed["data_samples"].thickness])
    with torch.no_grad():
        result = conv(stack.flatten(2, 3), thickness).unflatten(2, (stack.shape[2], -1))
    moved = (result - stack)[0, :, at, 0, 0] / SLOPE
    assert moved[2:].abs().max() < 1e-3
    return moved[:2].tolist()


@pytest.mark.parametrize("keep", [True, False], ids=["thick slices stay", "interpolated"])
def test_align_shift_shifts_by_2_mm_at_every_interval(ramp, keep):
    root, interval = ramp
    options = dict(hu_window=WINDOW, keep_thick=keep)
    slices = DeepLesionDataset(
        "annotations/test.json",
        data_root=str(root),
        pipeline=pipeline("LoadSliceStack", num_slices=3, **options),
    )
    assert effective_shift(slices[0], 1) == pytest.approx([2.0, -2.0], abs=1e-3)
    volumes = DeepLesionDataset(
        "annotations/test.json",
        data_root=str(root),
        sample="volume",
        test_mode=True,
        pipeline=pipeline("LoadVolumeSlices", "LoadLesionAnnotations", **options),
    )
    packed = volumes[0]
    # A slice whose neighbors are neither clipped by the HU window nor beyond the end.
    at = int(packed["data_samples"].gt_instances.slice_inds[0])
    assert effective_shift(packed, at) == pytest.approx([2.0, -2.0], abs=1e-3)
    thickness = interval if keep and interval > 2 else 2.0
    for dataset in (slices, volumes):
        assert dataset[0]["data_samples"].thickness == thickness


def test_key_slice_between_resampled_slices_is_unchanged(tmp_path):
    """Slice 2 at an interval of 2.5 mm lies at 5 mm, between the slices at 4 and 6 mm."""
    rows = [row(FOLDER, z + 1, spacing=(0.7, 0.7, 2.5)) for z in range(5)]
    raw = write_raw(tmp_path / "raw", {FOLDER: [1, 2, 3, 4, 5]}, rows)
    DeepLesionConversion(raw, tmp_path / "out", spacing=(0, 0)).run(progress=False)
    dataset = DeepLesionDataset("annotations/train.json", data_root=str(tmp_path / "out"))
    assert [dataset[i]["slice_index"] for i in range(5)] == [0, 1, 2, 3, 4]
    pngs = [
        cv2.imread(str(raw / "Images_png" / FOLDER / f"{z + 1:03d}.png"), -1).astype(int) - 32768
        for z in range(5)
    ]
    for info in dataset:
        image = LoadSliceStack(3)(dict(info))["img"]
        z = info["slice_index"]
        np.testing.assert_array_equal(image[:, :, 1], apply_hu_window(pngs[z], (-1024, 3071)))
        # The next slice is at 2.5 mm, so 2 mm are four fifths of the distance.
        for channel, neighbor in ((0, max(z - 1, 0)), (2, min(z + 1, 4))):
            expected = apply_hu_window(0.2 * pngs[z] + 0.8 * pngs[neighbor], (-1024, 3071))
            np.testing.assert_allclose(image[:, :, channel], expected, atol=1e-3)
    # Detections on resampled slices are mapped to published slices.
    volumes = DeepLesionDataset(
        "annotations/train.json", data_root=str(tmp_path / "out"), sample="volume"
    )
    loaded = LoadVolumeSlices()(volumes[0])
    assert [one["slice_index"] for one in loaded["instances"]] == [0, 1, 2, 4, 5]
    geometry, published = (
        Geometry.from_dict(loaded[key]) for key in ("geometry", "published_geometry")
    )
    np.testing.assert_allclose(geometry.slices_to(published, [0, 1, 5]), [0, 0.8, 4])


def test_training_uses_published_key_slices(lesion_data, tmp_path):
    published = lesion_data / "deeplesion"
    names = ("000001_01_01", "000001_02_01", "000001_03_01")
    for name in names:
        shutil.copytree(published / "Images_png" / name, tmp_path / "raw" / "Images_png" / name)
    shutil.copy(published / "DL_info_test.csv", tmp_path / "raw" / "DL_info.csv")
    DeepLesionConversion(tmp_path / "raw", tmp_path / "out", spacing=(0, 0)).run(progress=False)
    dataset = DeepLesionDataset(
        "annotations/test.json", data_root=str(tmp_path / "out"), test_mode=True
    )
    content = json.loads((tmp_path / "out/annotations/test.json").read_text())
    first = {volume["name"]: volume["first_slice"] for volume in content["volumes"]}
    found = set()
    for info in dataset:
        number = first[info["volume"]] + info["slice_index"]
        series = info["volume"].rpartition("_")[0]
        found.add(f"{series}_{number:03d}.png")
        png = published / "Images_png" / series / f"{number:03d}.png"
        hu = cv2.imread(str(png), cv2.IMREAD_UNCHANGED).astype(np.int32) - 32768
        stored = open_volume(info["img_path"])
        (middle,) = stored.interpolate_slices([info["slice_index"]])
        np.testing.assert_array_equal(middle, hu)
        results = LoadSliceStack(7)(dict(info))
        np.testing.assert_array_equal(
            results["img"][:, :, 3], apply_hu_window(hu, (-1024, 3071)), err_msg=info["volume"]
        )
        (x1, y1, x2, y2) = info["instances"][0]["bbox"]
        np.testing.assert_allclose(
            info["published_gt"][0], [info["slice_index"], x1 + 1, y1 + 1, x2, y2]
        )
    rows, _ = read_dl_info(published / "DL_info_test.csv")
    assert found == {one.file_name for one in rows if one.folder in names}


def test_the_official_test_split_has_4817_key_slices(lesion_data):
    rows, _ = read_dl_info(lesion_data / "deeplesion" / "DL_info_test.csv")
    records = {}
    for one in rows:
        first, last = one.slice_range
        shape = (last - first + 1, *one.image_size[::-1])
        name = volume_name(one.folder, first, last)
        spacing = tuple(map(abs, one.spacing))
        published = Geometry(shape, spacing)
        records.setdefault(one.folder, {})[name] = dict(
            name=name,
            file_name=f"{name}.b2nd",
            first_slice=first,
            geometry=published.resample((0.8, 0.8, spacing[2])).to_dict(),
            published_geometry=published.to_dict(),
        )
    index = VolumeIndex(
        dict(folder=folder, volumes=list(volumes.values())) for folder, volumes in records.items()
    )
    annotations, _, _ = select_annotations(Annotation("DL_info_test.csv", one) for one in rows)
    builder, _ = key_slice_file("test", annotations, index)
    content = builder.to_dict()
    first = {volume["name"]: volume["first_slice"] for volume in content["volumes"]}
    names = {
        f"{one['volume'].rpartition('_')[0]}_{first[one['volume']] + one['slice_index']:03d}.png"
        for one in content["images"]
    }
    assert names == {annotation.row.file_name for annotation in annotations}
    assert len(content["images"]) == len(names) == 4817
