"""Planting of lesions into one scan of a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import SimpleITK as sitk  # noqa: N813
import xxhash

from ...errors import InputError
from ...io.atomic import atomic_write, read_json, write_json
from ...io.metaimage import write_metaimage
from ...io.scans import check_values
from ...io.scans.isolated import shared_reader
from ...io.volume_store import file_checksum
from ...structures import Volume
from ..deeplesion import write_slices
from ..luna16 import SUBSETS, new_uid
from ..marking import DEEPLESION, Missing, mark_lesions
from .backgrounds import BackgroundScan
from .contact_sheet import lesion_row
from .library import ShapeLibrary
from .plant import PlantedLesion, PlantingSettings, plant_lesions

__all__ = ["LAYOUTS", "PlantingTask"]

LAYOUTS = ("luna16", "deeplesion")
# PNG slices hold no lower values.
_LOWEST = -8192
_AIR = -1024


@dataclass(frozen=True)
class PlantingTask:
    """A scan and what is planted into it.

    Args:
        layout: One of ``LAYOUTS``.
        out: Folder to write to.
        scan: The scan.
        split: ``'train'``, ``'val'`` or ``'test'``.
        patient: Number of the patient, from 1.
        study: Number of the scan among those of the patient, from 1.
        copy: Number of the copy with other lesions, from 1.
        shapes: Library of shapes of the set.
        settings: What is planted.
        missing: Which lesions are not annotated (:func:`draw_annotated`).
        seed: Random seed of the dataset.
        known: Lesions of the scan ``(x, y, z, diameter)`` in world mm.
        timeout: Seconds that reading the scan may take.
        png_spacing: Spacing in mm of PNG slices without a table.
    """

    layout: str
    out: Path
    scan: BackgroundScan
    split: str
    patient: int
    study: int
    copy: int
    shapes: ShapeLibrary
    settings: PlantingSettings
    missing: Missing
    seed: int
    known: tuple[tuple[float, float, float, float], ...]
    timeout: float
    png_spacing: tuple[float, float, float] | None = None

    @property
    def name(self) -> str:
        """Unique name: that of the series in DeepLesion's layout."""
        return f"{self.patient:06d}_{self.study:02d}_{self.copy:02d}"

    @property
    def where(self) -> str:
        """Path of the scan, for reports."""
        return str(self.scan.source.path)

    @property
    def record_path(self) -> Path:
        """File that is written when the scan is complete."""
        return self.out / "records" / f"{self.name}.json"

    @property
    def sheet_path(self) -> Path:
        """Contact sheet of the scan's lesions."""
        return self.out / "records" / f"{self.name}.png"

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything except the settings that the result depends on, as plain values."""
        return {
            "scan": self.scan.name,
            "bytes": self.scan.bytes,
            "split": self.split,
            "known": [list(one) for one in self.known],
        }

    def read_record(self) -> dict[str, Any] | None:
        """Return the record of an earlier run if its files are complete, or None."""
        if not self.record_path.is_file():
            return None
        record = read_json(self.record_path)
        if record["inputs"] != self.inputs:
            return None
        for name, checksum in record["files"].items():
            path = self.out / name
            if not path.is_file() or file_checksum(path) != checksum:
                return None
        return record

    def convert(self) -> dict[str, Any]:
        """Plant the lesions, and write the scan and the record.

        Returns:
            The record. Its key ``refused`` says why nothing was planted, or is None; the record of
            a refused scan is not written.
        """
        try:
            record = self._plant()
        except InputError as error:
            text = str(error)
            where = self.where if self.where in text else f"{self.where}: {text}"
            return {"name": self.name, "refused": where if where != self.where else text}
        write_json(self.record_path, record)
        return record

    def _plant(self) -> dict[str, Any]:
        spacing = self.png_spacing
        scan = shared_reader(self.timeout).read(self.scan.source, None, spacing)
        odd = check_values(scan.volume.array)
        if odd:
            raise InputError(f"{odd[0]}; expected a CT in HU")
        volume = scan.volume.permute(scan.volume.geometry.symmetry_to_patient())
        if volume.array.shape[0] < 3:
            raise InputError(f"the scan has {volume.array.shape[0]} slices; expected three or more")
        rng = np.random.default_rng(self._seed())
        uid = new_uid(rng)
        known = np.array(self.known).reshape(-1, 4)
        outside = ~volume.geometry.contains(known[:, :3])
        if outside.any():
            raise InputError(
                f"the known lesion at {known[outside][0, :3].tolist()} mm lies outside the scan; "
                "expected lesions of this scan"
            )
        planted = plant_lesions(volume, self.shapes, self.settings, rng, known)
        diameters = [one.diameter for one in planted.lesions]
        annotated = draw_annotated(self.layout, diameters, self.missing, rng)
        rows = [lesion_row(volume.array, planted.volume.array, one) for one in planted.lesions]
        if rows:
            self._write_image(np.vstack(rows))
        files = self._write_scan(planted.volume, uid, scan.kind)
        files.append(self._write_masks(planted.volume, planted.lesions, uid))
        background = planted.background
        return {
            "name": self.name,
            "refused": None,
            "inputs": self.inputs,
            "files": {path.relative_to(self.out).as_posix(): file_checksum(path) for path in files},
            "uid": uid,
            "split": self.split,
            "source": self.where,
            "patient": self.scan.patient,
            "voxels": xxhash.xxh3_64_hexdigest(np.ascontiguousarray(volume.array).data.cast("B")),
            "geometry": volume.geometry.to_dict(),
            "flipped": self._is_flipped(scan.kind),
            "wanted": planted.wanted,
            "known": [list(one) for one in self.known],
            "point_spread": [round(value, 4) for value in background.point_spread],
            "noise": round(float(np.median(background.noise.sigmas)), 3),
            "lesions": [
                _describe(one, bool(shown)) for one, shown in zip(planted.lesions, annotated)
            ],
        }

    def _seed(self) -> np.random.SeedSequence:
        # By name, so that other scans do not matter.
        digest = hashlib.sha256(self.scan.name.encode()).digest()
        return np.random.SeedSequence((self.seed, int.from_bytes(digest[:8], "big"), self.copy))

    def _is_flipped(self, kind: str) -> bool:
        """Return whether slices are written from head to feet, against z of the world."""
        # The order of PNG slices is that of DeepLesion already.
        return self.layout == "deeplesion" and kind != "png"

    def _write_scan(self, volume: Volume, uid: str, kind: str) -> list[Path]:
        if self.layout == "luna16":
            folder = self.out / self.split / f"subset{(self.patient - 1) % SUBSETS}"
            path = folder / f"{uid}.mhd"
            write_metaimage(path, volume)
            return [path, path.with_suffix(".raw")]
        hu = np.where(volume.array < _LOWEST, _AIR, volume.array)
        folder = self.out / "Images_png" / self.name
        folder.parent.mkdir(parents=True, exist_ok=True)
        return write_slices(folder, hu[::-1] if self._is_flipped(kind) else hu)

    def _write_masks(self, volume: Volume, lesions: list[PlantedLesion], uid: str) -> Path:
        """Write the number of the lesion of each voxel, on the voxels of the scan."""
        labels = np.zeros(volume.shape, np.uint8)
        for lesion in lesions:
            z, y, x = lesion.start
            d, h, w = lesion.mask.shape
            labels[z : z + d, y : y + h, x : x + w][lesion.mask] = lesion.number
        if self.layout == "luna16":
            path = self.out / self.split / "masks" / f"{uid}.nrrd"
        else:
            path = self.out / "masks" / f"{self.name}.nrrd"
        image = Volume.with_geometry(labels, volume.geometry).to_sitk()
        with atomic_write(path) as temporary:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        return path

    def _write_image(self, sheet: np.ndarray) -> None:
        with atomic_write(self.sheet_path) as temporary:
            if not cv2.imwrite(str(temporary), sheet):
                raise OSError(f"{self.sheet_path} could not be written")


def draw_annotated(
    layout: str, diameters: Sequence[float], missing: Missing, rng: np.random.Generator
) -> np.ndarray:
    """Draw whether each lesion of a scan is annotated.

    Args:
        layout: One of ``LAYOUTS``. As in its published table, a scan in DeepLesion's keeps an
            annotation.
        diameters: Diameters in mm, shape (n,).
        missing: As for :func:`.mark_lesions`.
        rng: Random generator.

    Returns:
        Flags, shape (n,), bool.
    """
    if not len(diameters):
        return np.zeros(0, dtype=bool)
    if layout == "deeplesion" or missing == DEEPLESION:
        return mark_lesions(diameters, missing, rng)
    return rng.random(len(diameters)) >= missing


def _describe(lesion: PlantedLesion, annotated: bool) -> dict[str, Any]:
    """Return a lesion as plain values."""
    return {
        "number": lesion.number,
        "tissue": lesion.tissue,
        "kind": lesion.appearance.kind,
        "shape": lesion.shape,
        "annotated": annotated,
        "center_world": [round(value, 4) for value in lesion.center.tolist()],
        "diameter_mm": round(lesion.diameter, 4),
        "contrast": round(lesion.contrast, 2),
        "bbox_3d": lesion.box.tolist(),
        "key_slice": lesion.key_slice,
        "sections": {
            str(z): {"box": list(box), "recist": None if ends is None else ends.tolist()}
            for z, (box, ends) in lesion.sections().items()
        },
    }
