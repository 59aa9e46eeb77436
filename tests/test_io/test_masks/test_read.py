import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.masks import MaskOptions, find_masks, read_label_names, read_mask
from mmdet_lesion.structures import CubeSymmetry, Geometry, Volume

from ...dicom_files import write_series
from ...mask_files import ct, rectangle, with_labels, write_image, write_rtstruct, write_seg

BOX = np.s_[2:5, 6:11, 4:9]


def source_of(path):
    ((source,), _) = find_masks([path])
    return source


@pytest.fixture
def image():
    return ct()


@pytest.fixture
def series(image, tmp_path):
    """Files of the scan from its first to its last slice, and its Series Instance UID."""
    files = write_series(
        tmp_path / "ct", image.array, image.spacing, image.origin, SeriesInstanceUID="1.2.3"
    )
    return files, "1.2.3"


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd"])
def test_label_maps(image, tmp_path, suffix):
    labels = with_labels(image, (1, *BOX), (3, 6, 4, 4))
    source = source_of(write_image(tmp_path / f"mask{suffix}", labels))
    found = read_mask(source, image.geometry, MaskOptions())
    np.testing.assert_array_equal(found.volume.array, labels.array)
    assert found.names == {1: "", 3: ""} and found.warnings == []
    assert read_label_names(source).names == {1: "", 3: ""}
    chosen = read_mask(source, image.geometry, MaskOptions(labels=("3", "7")))
    assert np.unique(chosen.volume.array).tolist() == [0, 3] and chosen.names == {3: ""}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.int8, np.int64])
def test_whole_numbers_of_any_type_are_labels(image, tmp_path, dtype):
    labels = with_labels(image, (2, *BOX))
    labels = Volume.with_geometry(labels.array.astype(dtype), image.geometry)
    source = source_of(write_image(tmp_path / "mask.mha", labels))
    found = read_mask(source, image.geometry, MaskOptions()).volume.array
    np.testing.assert_array_equal(found, labels.array)


@pytest.mark.parametrize(
    ("value", "message"),
    [(0.5, "has the value 0.5; expected whole numbers"), (-1.0, "values from -1 to 0; expected"),
     (np.nan, "has the value nan"), (1e12, "expected labels from 0")],
)  # fmt: skip
def test_values_that_are_no_labels(image, tmp_path, value, message):
    array = np.zeros(image.shape, dtype=np.float32)
    array[0, 0, 0] = value
    volume = Volume.with_geometry(array, image.geometry)
    source = source_of(write_image(tmp_path / "mask.nrrd", volume))
    with pytest.raises(InputError, match=message):
        read_mask(source, image.geometry, MaskOptions())


def test_segments_are_placed_on_the_scan(image, series, tmp_path):
    files, uid = series
    masks = {name: np.zeros(image.shape, dtype=bool) for name in ("Tumor", "Liver")}
    masks["Tumor"][BOX] = True
    masks["Tumor"][6, 2, 2] = True
    masks["Liver"][1:7, 3:, 10:] = True
    path = write_seg(tmp_path / "seg.dcm", files, masks)
    source = source_of(path)
    assert source.kind == "seg" and source.series == (uid,)
    assert read_label_names(source).names == {1: "Tumor", 2: "Liver"}
    # Empty frames are omitted, also between the parts of a segment.
    found = read_mask(source, image.geometry, MaskOptions(labels=("tumor",)))
    np.testing.assert_array_equal(found.volume.array, masks["Tumor"])
    assert found.names == {1: "Tumor"}
    found = read_mask(source, image.geometry, MaskOptions(labels=("2",)))
    np.testing.assert_array_equal(found.volume.array == 2, masks["Liver"])
    none = read_mask(source, image.geometry, MaskOptions(labels=("Spleen",)))
    assert not none.volume.array.any() and none.names == {}


def test_overlapping_segments_are_reported(image, series, tmp_path):
    masks = {name: np.zeros(image.shape, dtype=bool) for name in "ab"}
    masks["a"][BOX] = masks["b"][3:6, 6:11, 4:9] = True
    source = source_of(write_seg(tmp_path / "seg.dcm", series[0], masks))
    found = read_mask(source, image.geometry, MaskOptions())
    assert found.warnings == ["segment 1 overlaps others in 50 voxels"]
    np.testing.assert_array_equal(found.volume.array > 0, masks["a"] | masks["b"])


def test_a_segment_on_a_single_slice(image, series, tmp_path):
    mask = np.zeros(image.shape, dtype=bool)
    mask[3, 5:9, 5:9] = True
    source = source_of(write_seg(tmp_path / "seg.dcm", series[0], {"a": mask}))
    found = read_mask(source, image.geometry, MaskOptions())
    np.testing.assert_array_equal(found.volume.array, mask)


def test_contours_become_the_voxels_inside(image, tmp_path):
    geometry = image.geometry
    hole = rectangle(geometry, 3, (6, 7, 8, 9))
    contours = [rectangle(geometry, z, (4, 6, 9, 11)) for z in (2, 3, 4)] + [hole]
    organ = [rectangle(geometry, 1, (2, 2, 18, 20))]
    path = write_rtstruct(tmp_path / "rt.dcm", "1.2.3", {"GTV": contours, "Organ": organ})
    source = source_of(path)
    assert source.kind == "rtstruct" and source.series == ("1.2.3",)
    assert read_label_names(source).names == {1: "GTV", 2: "Organ"}
    expected = np.zeros(image.shape, dtype=bool)
    expected[BOX] = True
    expected[3, 7:9, 6:8] = False
    found = read_mask(source, geometry, MaskOptions(labels=("gtv",)))
    np.testing.assert_array_equal(found.volume.array, expected)


def test_contours_outside_or_across_slices_are_refused(image, tmp_path):
    geometry = image.geometry
    tilted = rectangle(geometry, 3, (4, 6, 9, 11)) + np.array([[0, 0, 0], [0, 0, 9]] * 2)
    for number, (contour, message) in enumerate(
        [(tilted, "has a contour over 4.5 slices"),
         (rectangle(geometry, 8, (4, 6, 9, 11)), "has a contour outside the scan"),
         (rectangle(geometry, 3, (4, 6, 30, 11)), "has a contour outside the scan")]
    ):  # fmt: skip
        path = write_rtstruct(tmp_path / f"{number}.dcm", "1.2.3", {"GTV": [contour]})
        with pytest.raises(InputError, match=message):
            read_mask(source_of(path), geometry, MaskOptions())


def test_gaps_between_contours_are_reported(image, tmp_path):
    contours = [rectangle(image.geometry, z, (4, 6, 9, 11)) for z in (1, 3, 5)]
    source = source_of(write_rtstruct(tmp_path / "rt.dcm", "1.2.3", {"GTV": contours}))
    (warning,) = read_mask(source, image.geometry, MaskOptions()).warnings
    assert warning.startswith("region 1 has contours on every second slice")


def test_axes_are_permuted_flipped_and_shifted_exactly(image, tmp_path):
    labels = with_labels(image, (1, *BOX), (2, 6, 4, 4))
    for axes, flips in (((0, 1, 2), (True, False, True)), ((2, 0, 1), (False, True, False))):
        turned = labels.permute(CubeSymmetry(axes, flips))
        source = source_of(write_image(tmp_path / "mask.nrrd", turned))
        found = read_mask(source, image.geometry, MaskOptions()).volume.array
        np.testing.assert_array_equal(found, labels.array)
    # A part of the grid, as 3D Slicer writes it.
    part = Volume.with_geometry(
        labels.array[2:7, 4:11, 4:10], labels.geometry.crop((4, 4, 2), (5, 7, 6))
    )
    source = source_of(write_image(tmp_path / "part.seg.nrrd", part))
    found = read_mask(source, image.geometry, MaskOptions()).volume.array
    np.testing.assert_array_equal(found, labels.array)


def test_another_grid_is_refused_or_resampled(image, tmp_path):
    fine = Geometry((16, 48, 40), (0.5, 0.5, 1.0), (-10.25, 4.75, 29.5))
    labels = np.zeros(fine.shape, dtype=np.uint8)
    labels[4:10, 12:22, 8:18] = 1
    path = write_image(tmp_path / "mask.nii.gz", Volume.with_geometry(labels, fine))
    with pytest.raises(InputError, match=r"not on the grid of its scan: 40 x 48 x 16 voxels of "
                       r"0.5 x 0.5 x 1 mm .*; expected the same voxels within 0.1 mm"):  # fmt: skip
        read_mask(source_of(path), image.geometry, MaskOptions())
    found = read_mask(source_of(path), image.geometry, MaskOptions(resample=True)).volume.array
    expected = with_labels(image, (1, *BOX)).array
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("shift", "accepted"), [(0.05, True), (0.3, False)])
def test_tolerance(image, tmp_path, shift, accepted):
    labels = with_labels(image, (1, *BOX))
    moved = Volume(labels.array, labels.spacing, (labels.origin[0] + shift, *labels.origin[1:]))
    source = source_of(write_image(tmp_path / "mask.mha", moved))
    if accepted:
        found = read_mask(source, image.geometry, MaskOptions()).volume.array
        np.testing.assert_array_equal(found, labels.array)
    else:
        with pytest.raises(InputError, match="up to 0.3 mm apart; expected the same voxels"):
            read_mask(source, image.geometry, MaskOptions())
    read_mask(source, image.geometry, MaskOptions(tolerance=0.5))


def test_labels_outside_the_scan_are_refused(image, tmp_path):
    labels = with_labels(image, (1, *BOX))
    # Shifted by whole voxels, so that it lies on the grid.
    moved = Volume(labels.array, labels.spacing, (labels.origin[0] - 6, *labels.origin[1:]))
    source = source_of(write_image(tmp_path / "mask.mha", moved))
    with pytest.raises(InputError, match="has 30 labeled voxels outside the scan"):
        read_mask(source, image.geometry, MaskOptions())


def test_files_that_are_no_masks(series, tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "mask.raw").write_bytes(b"0")
    (tmp_path / "broken.dcm").write_bytes(bytes(128) + b"DICMxxxx")
    masks, skipped = find_masks([series[0][0], *sorted(tmp_path.glob("*.*"))])
    assert masks == []
    reasons = [one.reason for one in skipped]
    assert reasons[0] == "a DICOM file of modality CT, no mask"
    assert reasons[1].startswith(("not a readable", "a DICOM file of modality unknown"))
    assert reasons[2] == "neither an image nor a DICOM file"
