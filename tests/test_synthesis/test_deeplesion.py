import csv
import hashlib
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.dl_info import read_dl_info
from mmdet_lesion.io.harvester import read_ground_truth
from mmdet_lesion.synthesis import make_deeplesion, plan_volumes, render_volume

HEADER = (
    "File_name,Patient_index,Study_index,Series_ID,Key_slice_index,Measurement_coordinates,"
    "Bounding_boxes,Lesion_diameters_Pixel_,Normalized_lesion_location,Coarse_lesion_type,"
    "Possibly_noisy,Slice_range,Spacing_mm_px_,Image_size,DICOM_windows,Patient_gender,"
    "Patient_age,Train_Val_Test"
)
NUMBER = r"-?\d+(\.\d+)?(e-\d+)?"


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def truths(raw):
    return {
        name: read_ground_truth(raw / "harvester" / f"{name}.pkl")
        for name in ("Full-Train", "Revised-Train100", "Revised-Test1071")
    }


def volume_of(row):
    return f"{row.folder}_{row.slice_range[0]:03d}-{row.slice_range[1]:03d}"


def test_files_depend_on_the_seed_and_not_on_workers(tiny_phantoms, tiny_config, tmp_path):
    raw, summary = tiny_phantoms
    again = make_deeplesion(tmp_path / "again", tiny_config, workers=2, progress=False)
    assert again == summary
    assert digests(tmp_path / "again") == digests(raw)


def test_another_seed_gives_other_slices(tiny_phantoms, tiny_config, tmp_path):
    raw, _ = tiny_phantoms
    config = replace(tiny_config, seed=6, volumes=3, split=(1, 1, 1))
    make_deeplesion(tmp_path / "other", config, progress=False)
    assert not set(digests(raw).values()) & set(digests(tmp_path / "other" / "Images_png").values())


def test_layout_and_hu(tiny_phantoms, tiny_config):
    raw, summary = tiny_phantoms
    assert sorted(path.name for path in raw.iterdir()) == [
        "DL_info.csv",
        "Images_png",
        "harvester",
        "phantoms.json",
    ]
    plans = plan_volumes(tiny_config)
    expected = {
        f"{plan.folder}/{number:03d}.png"
        for plan in plans
        for number in range(plan.first_slice, plan.last_slice + 1)
    }
    images = raw / "Images_png"
    assert {str(path.relative_to(images)) for path in images.rglob("*.png")} == expected
    rendered = render_volume(plans[0], tiny_config)
    for z, hu in enumerate(rendered.hu):
        path = images / plans[0].folder / f"{plans[0].first_slice + z:03d}.png"
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert pixels.dtype == np.uint16
        np.testing.assert_array_equal(pixels.astype(int) - 32768, hu)
    assert json.loads((raw / "phantoms.json").read_text())["summary"] == summary


def test_table_has_the_published_format(tiny_phantoms):
    raw, _ = tiny_phantoms
    content = (raw / "DL_info.csv").read_bytes()
    assert b"\r" not in content and content.decode().splitlines()[0] == HEADER
    several = re.compile(rf"{NUMBER}(, {NUMBER})+")
    for row in csv.DictReader(content.decode().splitlines()):
        for name, count in (
            ("Measurement_coordinates", 8),
            ("Bounding_boxes", 4),
            ("Lesion_diameters_Pixel_", 2),
            ("Normalized_lesion_location", 3),
            ("Slice_range", 2),
            ("Spacing_mm_px_", 3),
            ("Image_size", 2),
            ("DICOM_windows", 2),
        ):
            assert several.fullmatch(row[name]) and row[name].count(",") == count - 1
        assert re.fullmatch(r"\d{6}_\d{2}_\d{2}_\d{3}\.png", row["File_name"])
        assert row["Patient_gender"] in "MF" and row["Patient_age"].isdigit()
    rows, problems = read_dl_info(raw / "DL_info.csv")
    assert rows and not problems


def test_annotation_fields_are_consistent(tiny_phantoms, tiny_config):
    raw, _ = tiny_phantoms
    rows, _ = read_dl_info(raw / "DL_info.csv")
    for row in rows:
        ends = np.reshape(row.measurement, (4, 2))
        np.testing.assert_allclose(
            np.linalg.norm(ends[::2] - ends[1::2], axis=1), row.diameters, atol=2e-3
        )
        pad = tiny_config.box_padding
        box = np.clip(np.r_[ends.min(0) - pad, ends.max(0) + pad], 1, tiny_config.size)
        np.testing.assert_allclose(row.box, box, atol=1e-3)
        assert row.slice_range[0] <= row.key_slice <= row.slice_range[1]
        assert (row.lesion_type == -1) == (row.split == 1)
        assert 12 <= row.diameters[0] * row.spacing[0] <= 62
        assert all(0 <= value <= 1 for value in row.location)


def test_boxes_lie_on_the_lesions(tiny_config):
    """The center of an annotation has the HU of the lesion, up to its texture."""
    config = replace(tiny_config, volumes=3, split=(1, 1, 1), size=160, slices=(6, 6), noise=0.0)
    for plan in plan_volumes(config):
        rendered = render_volume(plan, config)
        for lesion in rendered.lesions:
            ends = lesion.sections[lesion.key_slice]
            x, y = np.rint(ends.mean(0)).astype(int)
            inside = rendered.hu[lesion.key_slice, y - 1 : y + 2, x - 1 : x + 2]
            assert np.median(inside) == pytest.approx(lesion.hu, abs=15)


def test_complete_ground_truth_contains_every_lesion(tiny_phantoms, tiny_config):
    raw, summary = tiny_phantoms
    full, val, test = truths(raw).values()
    plans = {plan.name: plan for plan in plan_volumes(tiny_config)}
    for split, truth in ((1, full), (2, val), (3, test)):
        assert set(truth) == {name for name, plan in plans.items() if plan.split == split}
    for key, truth in (("val", val), ("test", test)):
        assert summary[key]["lesions"] == sum(len(b) for v in truth.values() for b in v.values())
    for name, slices in full.items():
        rendered = render_volume(plans[name], tiny_config)
        for z in range(plans[name].slices):
            cut = [lesion for lesion in rendered.lesions if z in lesion.sections]
            assert len(slices.get(z, ())) == len(cut)


def test_complete_ground_truth_contains_the_annotations(tiny_phantoms):
    raw, summary = tiny_phantoms
    complete = {name: slices for truth in truths(raw).values() for name, slices in truth.items()}
    rows, _ = read_dl_info(raw / "DL_info.csv")
    for row in rows:
        boxes = complete[volume_of(row)][row.key_slice - row.slice_range[0]]
        assert (boxes == np.array(row.box)).all(1).any()
    assert {volume_of(row) for row in rows} == set(complete)
    for split, name in ((1, "train"), (2, "val"), (3, "test")):
        assert summary[name]["annotated"] == sum(row.split == split for row in rows)


def test_missing_fraction_and_at_least_one_annotation(tiny_config):
    annotated, sizes = [], []
    config = replace(tiny_config, volumes=40, size=48, slices=(6, 6), split=(40, 0, 0))
    for plan in plan_volumes(config):
        rendered = render_volume(plan, config)
        annotated.append(int(rendered.annotated.sum()))
        sizes.append(len(rendered.lesions))
    assert min(annotated) >= 1
    # Half of the lesions lack an annotation, except those that are the only one of a volume.
    assert 0.35 < 1 - sum(annotated) / sum(sizes) < 0.55


@pytest.mark.parametrize(("missing", "share"), [(0.0, "all"), (1.0, "one")])
def test_missing_0_and_1(tiny_config, missing, share):
    config = replace(tiny_config, volumes=3, split=(1, 1, 1), missing=missing)
    for plan in plan_volumes(config):
        rendered = render_volume(plan, config)
        assert rendered.annotated.sum() == (len(rendered.lesions) if share == "all" else 1)


def test_overwrite(tiny_config, tmp_path):
    config = replace(tiny_config, volumes=3, size=40, slices=(4, 4), split=(1, 1, 1))
    out = tmp_path / "raw"
    out.mkdir()
    (out / "precious.txt").write_text("keep me")
    with pytest.raises(InputError, match="has files but no phantoms.json"):
        make_deeplesion(out, config, overwrite=True, progress=False)
    assert (out / "precious.txt").read_text() == "keep me"
    (out / "precious.txt").unlink()
    make_deeplesion(out, config, progress=False)
    before = digests(out)
    with pytest.raises(InputError, match="already holds phantoms; expected --overwrite"):
        make_deeplesion(out, config, progress=False)
    make_deeplesion(out, replace(config, seed=9), overwrite=True, progress=False)
    assert digests(out) != before
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_failure_leaves_no_files(tiny_config, tmp_path):
    config = replace(
        tiny_config, volumes=3, split=(1, 1, 1), lesion_types=(6,), diameter=(200.0, 210.0)
    )
    with pytest.raises(InputError, match="no lesion of types"):
        make_deeplesion(tmp_path / "raw", config, progress=False)
    assert not list(tmp_path.iterdir())
