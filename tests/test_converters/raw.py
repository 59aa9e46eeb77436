"""Small raw folders in DeepLesion's layout."""

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from mmdet_lesion.io import DLInfoRow, write_dl_info, write_ground_truth


def write_png(path: Path, hu: np.ndarray) -> None:
    """Write a slice in the published encoding."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (hu.astype(np.int32) + 32768).astype(np.uint16)
    assert cv2.imwrite(str(path), pixels)


def ct(seed: int, slices: int, size: int = 24) -> np.ndarray:
    """Return slices of noise in HU."""
    rng = np.random.default_rng(seed)
    return rng.integers(-1024, 1500, (slices, size, size)).astype(np.int16)


def row(folder: str, key_slice: int, box=(5.5, 6.25, 12.0, 15.75), **changes) -> DLInfoRow:
    """Return a row of DL_info.csv whose diameters span the box."""
    patient, study, series = map(int, folder.split("_"))
    x1, y1, x2, y2 = box
    values = dict(
        file_name=f'{folder}_{key_slice:03d}.png', patient=patient, study=study, series=series,
        key_slice=key_slice, measurement=(x1, y1, x2, y2, x1, y2, x2, y1), box=box,
        diameters=(9.0, 7.0), location=(0.5, 0.5, 0.5), lesion_type=5, noisy=False,
        slice_range=(1, 5), spacing=(0.7, 0.7, 5.0), image_size=(24, 24), window=(-175.0, 275.0),
        gender='F', age=51.0, split=1,
    )  # fmt: skip
    return DLInfoRow(**{**values, **changes})


def write_raw(raw: Path, folders: dict[str, list[int]], rows: list[DLInfoRow], truths=None) -> Path:
    """Write slices, the table and ground truths ``{file: {volume: {z: boxes}}}``."""
    for seed, (folder, numbers) in enumerate(folders.items()):
        for number, hu in zip(numbers, ct(seed, len(numbers)), strict=True):
            write_png(raw / "Images_png" / folder / f"{number:03d}.png", hu)
    write_dl_info(raw / "DL_info.csv", rows)
    for name, truth in (truths or {}).items():
        write_ground_truth(raw / "harvester" / f"{name}.pkl", truth)
    return raw


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def kill_at(write: int, convert: Callable[[], object]) -> None:
    """Convert in a process that is killed before it completes its n-th file."""

    def run() -> None:
        replace = os.replace

        def die_instead(source, target, count=[0]):  # noqa: B006
            count[0] += 1
            if count[0] == write:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = die_instead
        convert()

    process = get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
