"""Damaged files end in one sentence or in valid data, whatever the damage.

``make fuzz`` repeats the tests with other seeds for ``FUZZ_SECONDS`` per format.
"""

import gzip
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion import InputError
from mmdet_lesion.evaluation.cases import luna16_case, p3d_case, slice_case
from mmdet_lesion.io import (
    load_pickle,
    load_volume,
    read_detections,
    read_ground_truth,
    save_volume,
)
from mmdet_lesion.io.coco import read_annotation_file
from mmdet_lesion.io.data_list import read_data_list
from mmdet_lesion.io.dl_info import read_dl_info
from mmdet_lesion.io.scans import find_scans
from mmdet_lesion.io.scans.isolated import IsolatedReader

from .dicom_files import write_series
from .mutations import mutate
from .small_scans import small_ct

SECONDS = float(os.environ.get("FUZZ_SECONDS", 0))
SEED = int(os.environ.get("FUZZ_SEED", time.time() if SECONDS else 0))
#: Largest voxel that a damaged scan may have without a warning.
HU = 32767


def rounds(number: int):
    """Yield seeds: ``number`` of them, or for ``FUZZ_SECONDS``."""
    end = time.monotonic() + SECONDS
    seed = SEED
    while (time.monotonic() < end) if SECONDS else (seed < SEED + number):
        yield seed
        seed += 1


def check(read, path: Path, data: bytes, seed: int, keep: Path):
    """Return what a reader returns for damaged data, None if it refuses them in one sentence."""
    path.write_bytes(data)
    try:
        return read(path)
    except (InputError, FileNotFoundError) as error:
        text = str(error)
        assert text.strip() and len(text) < 2000 and "Traceback" not in text, (seed, text)
        return None
    except Exception as error:
        (keep / f"fuzz-{seed}{path.suffix}").write_bytes(data)
        raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error


def valid_scan(scan) -> bool:
    geometry = scan.volume.geometry
    return scan.volume.array.dtype == np.int16 and all(
        0.01 <= spacing <= 100 for spacing in geometry.spacing
    )


@pytest.fixture(scope="module")
def reader():
    with IsolatedReader(timeout=20) as reader:
        yield reader


IMAGES = {"mha": False, "compressed.mha": True, "nrrd": False, "gzip.nrrd": True, "nii": False,
          "nii.gz": True}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_image_files(reader, tmp_path, name):
    volume = small_ct()
    path = tmp_path / f"scan.{name}"
    sitk.WriteImage(volume.to_sitk(), str(path), useCompression=IMAGES[name])
    good, read = path.read_bytes(), 0
    for seed in rounds(60):
        rng = np.random.default_rng(seed)
        data = mutate(good, rng)
        if name == "nii.gz" and rng.random() < 0.5:
            # Damage inside a valid stream.
            data = gzip.compress(mutate(gzip.decompress(good), rng))
        scan = check(lambda path: reader.read(find_scans(str(path))[0]), path, data, seed, tmp_path)
        if scan is not None:
            read += 1
            assert valid_scan(scan), seed
    assert SECONDS or read < 60


def test_dicom_series(reader, tmp_path):
    write_series(tmp_path / "series", small_ct(shape=(4, 12, 14)).array)
    path = sorted((tmp_path / "series").iterdir())[1]
    good = path.read_bytes()
    for seed in rounds(80):
        data = mutate(good, np.random.default_rng(seed))
        scan = check(
            lambda path: reader.read(find_scans(str(path.parent))[0]), path, data, seed, tmp_path
        )
        assert scan is None or valid_scan(scan), seed


@pytest.fixture
def texts(phantom_store, phantom_raw, luna16_store, luna16_raw, tmp_path):
    """Valid text files and their readers."""
    annotations = luna16_store / "annotations"
    series = luna16_raw / "seriesuids.csv"
    return {
        "DL_info.csv": (phantom_raw / "DL_info.csv", read_dl_info),
        "coco.json": (
            phantom_store / "annotations/test.json",
            lambda path: read_annotation_file(path, phantom_store / "volumes"),
        ),
        "data_list.json": (next(annotations.glob("labeled_*.json")), read_data_list),
        "slice.json": (phantom_store / "annotations/test.json", slice_case),
        "annotations.csv": (
            luna16_raw / "annotations.csv",
            lambda path: luna16_case(path, series=[series]),
        ),
        "seriesuids.csv": (
            series,
            lambda path: luna16_case(luna16_raw / "annotations.csv", series=[path]),
        ),
        "p3d.pkl": (phantom_raw / "harvester/Revised-Test1071.pkl", p3d_case),
        "truth.pkl": (phantom_raw / "harvester/Revised-Test1071.pkl", read_ground_truth),
    }


NAMES = ("DL_info.csv", "coco.json", "data_list.json", "slice.json", "annotations.csv",
         "seriesuids.csv", "p3d.pkl", "truth.pkl")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_tables_and_json(texts, tmp_path, name):
    good, read = texts[name]
    content = good.read_bytes()
    for seed in rounds(60):
        damaged = mutate(content, np.random.default_rng(seed))
        check(read, tmp_path / name, damaged, seed, tmp_path)


def test_pickles_of_detections(tmp_path):
    row = [1.0, 2.0, 30.0, 40.0, 0.5]
    content = {"000001_01_01_001-010": [[(3, row), (4, np.array(row, np.float32))]]}
    for protocol in (2, 5):
        good = pickle.dumps(content, protocol)
        for seed in rounds(100):
            damaged = mutate(good, np.random.default_rng(seed))
            check(load_pickle, tmp_path / "a.pkl", damaged, seed, tmp_path)
            check(read_detections, tmp_path / "a.pkl", damaged, seed, tmp_path)


def test_volume_store(tmp_path):
    volume = small_ct()
    save_volume(tmp_path / "good.b2nd", volume)
    good = (tmp_path / "good.b2nd").read_bytes()
    for seed in rounds(200):
        damaged = mutate(good, np.random.default_rng(seed))
        loaded = check(load_volume, tmp_path / "a.b2nd", damaged, seed, tmp_path)
        if loaded is not None:
            # Only padding may differ.
            np.testing.assert_array_equal(loaded.array, volume.array, err_msg=str(seed))
            assert loaded.geometry == volume.geometry, seed
