import pytest

from mmdet_lesion.io.masks import Candidate, pair_cases
from mmdet_lesion.io.masks.pairs import case_of, role_of


def candidates(*paths, prefix="", series=()):
    return [Candidate(prefix + path, tuple(path.split("/")), series) for path in paths]


def pair(images, masks):
    return pair_cases(candidates(*images, prefix="i:"), candidates(*masks, prefix="m:"))


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("case1", "case1"),
        ("case1", "case1_mask"),
        ("STS_001_CT_image", "STS_001_CT_mask"),
        ("case1_ct", "case1_seg"),
        ("volume-12", "segmentation-12"),
        ("imagesTr/liver_1_0000", "labelsTr/liver_1"),
        ("case1/image", "case1/mask"),
        ("case1/imaging", "case1/segmentation"),
        ("case1/CT", "case1"),
        ("p1/2020", "p1_2020"),
        ("case1/case1", "CASE1-label"),
    ],
)
def test_names_that_belong_together(image, mask):
    # Neighbors differ in their number only.
    other = [path.replace("1", "7") for path in (image, mask)]
    found = pair([image, other[0]], [other[1], mask])
    assert set(found.pairs) == {(f"i:{image}", f"m:{mask}"), (f"i:{other[0]}", f"m:{other[1]}")}
    assert not (found.images or found.masks or found.ambiguous)


def test_equal_names_come_before_equal_cases():
    found = pair(["ct_1", "scan_1"], ["ct_1", "scan_1"])
    assert found.pairs == [("i:ct_1", "m:ct_1"), ("i:scan_1", "m:scan_1")]


def test_what_does_not_belong_together_is_left():
    found = pair(["a_ct", "b_ct"], ["b_mask", "c_mask", "lesion1_a"])
    assert found.pairs == [("i:b_ct", "m:b_mask")]
    assert found.images == ["i:a_ct"]
    assert set(found.masks) == {"m:c_mask", "m:lesion1_a"}
    assert found.masks["m:c_mask"] == "no scan has its name or the case 'c'"


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["a_ct"], ["a_mask", "a_seg"]),
        (["a_ct", "a_image"], ["a_mask"]),
        (["a_ct", "A_image"], ["a_mask", "a_seg"]),
    ],
)
def test_ambiguous_names_are_not_used(images, masks):
    found = pair([*images, "b"], [*masks, "b"])
    assert found.pairs == [("i:b", "m:b")]
    assert set(found.ambiguous) == {f"i:{name}" for name in images} | {f"m:{n}" for n in masks}
    (reason,) = set(found.ambiguous.values())
    assert reason.startswith(f"{len(images)} scans and {len(masks)} masks belong to the same case")
    assert images[0] in reason and masks[0] in reason


def test_dicom_references_come_before_names():
    images = [Candidate("i1", ("a",), ("1.1",)), Candidate("i2", ("b",), ("1.2",))]
    masks = [
        Candidate("m2", ("a",), ("1.2",)),
        Candidate("m1", ("x",), ("1.1",)),
        Candidate("m3", ("y",), ("1.9",)),
    ]
    found = pair_cases(images, masks)
    assert set(found.pairs) == {("i2", "m2"), ("i1", "m1")}
    assert found.masks == {"m3": "refers to a series that is not among the scans"}


def test_two_segmentations_of_a_series_are_ambiguous():
    masks = [Candidate(name, (name,), ("1.1",)) for name in ("m1", "m2")]
    found = pair_cases([Candidate("i", ("a",), ("1.1",))], masks)
    assert set(found.ambiguous) == {"i", "m1", "m2"} and not found.pairs
    assert "1 scans and 2 masks refer to the same series" in found.ambiguous["i"]


def test_case_and_role():
    assert case_of(("Data", "P1_CT"), lower=False) == "Data_P1"
    assert case_of(("image",)) == ""
    assert [role_of(tuple(path.split("/"))) for path in (
        "STS_001_CT_mask", "lesion_ct", "labels/case1", "images/case1", "case1", "mask_1"
    )] == ["mask", "image", "mask", "image", None, "mask"]  # fmt: skip
