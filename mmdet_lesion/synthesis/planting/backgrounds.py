"""Scans as backgrounds of planted lesions, and their patients."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...converters.mask_cases import patient_id
from ...converters.patient_split import SPLITS, check_shares, split_patients
from ...errors import InputError
from ...io.scans import ScanSource, find_scans

__all__ = ["BackgroundScan", "find_backgrounds", "scan_place", "split_backgrounds"]

# DeepLesion's folders {patient}_{study}_{series}.
_DEEPLESION = re.compile(r"(\d{6,})_\d{2,}_\d{2,}")


@dataclass(frozen=True)
class BackgroundScan:
    """A scan to plant lesions into.

    Args:
        source: The scan.
        patient: The patient.
    """

    source: ScanSource
    patient: str

    @property
    def name(self) -> str:
        """Name of the scan, different for all scans of a search."""
        return self.source.name

    @property
    def bytes(self) -> int:
        """Size of its files."""
        files = self.source.files or (self.source.path,)
        return sum(path.stat().st_size for path in files if path.is_file())


def find_backgrounds(
    inputs: Sequence[str | os.PathLike], patient: str | None = None
) -> list[BackgroundScan]:
    """Find scans and their patients, sorted by name. A scan that is given twice is one scan.

    Args:
        inputs: Paths of scans, as for :func:`~.io.scans.find_scans`.
        patient: Regular expression that finds the patient in the path of a scan. By default, it is
            the Patient ID of a DICOM scan, the number of DeepLesion's folder, or the name of the
            scan.

    Raises:
        InputError: A path does not exist, or ``patient`` is invalid or does not match a path.
    """
    try:
        pattern = None if patient is None else re.compile(patient)
    except re.error as error:
        raise InputError(
            f"--patient is {patient!r}; expected a regular expression ({error})"
        ) from None
    found = []
    for source in {scan_place(source): source for source in find_scans(inputs)}.values():
        if source.kind in ("missing", "special"):
            raise InputError(f"{source.path} does not exist; expected a scan")
        found.append(BackgroundScan(source, _patient(source, pattern)))
    return sorted(found, key=lambda scan: scan.name)


def scan_place(source: ScanSource) -> tuple[object, ...]:
    """Return what identifies a scan in every search, other than its name."""
    return source.path, source.series, source.part, source.slices


def _patient(source: ScanSource, pattern: re.Pattern[str] | None) -> str:
    if pattern is not None:
        match = pattern.search(os.fspath(source.path))
        if match is None:
            raise InputError(
                f"--patient {pattern.pattern!r} matches nothing in {source.path}; expected a "
                "regular expression that finds the patient in the path of every scan"
            )
        return match[1] if pattern.groups else match[0]
    if source.kind == "dicom":
        return patient_id(source) or source.name
    if source.kind == "png" and (match := _DEEPLESION.fullmatch(source.path.name)):
        return match[1]
    return source.name


def split_backgrounds(
    patients: Sequence[str], shares: Sequence[float], seed: int
) -> dict[str, str]:
    """Draw the set of each patient.

    Args:
        patients: The patients.
        shares: Shares of the training, validation and test set.
        seed: Random seed.

    Returns:
        The set of each patient, one of ``train``, ``val`` and ``test``.

    Raises:
        InputError: The shares are invalid, or there are fewer patients than sets.
    """
    shares = check_shares(shares)
    wanted = sum(share > 0 for share in shares)
    if len(set(patients)) < wanted:
        used = [name for name, share in zip(SPLITS, shares) if share > 0]
        raise InputError(
            f"the backgrounds are of {len(set(patients))} patient(s) ({', '.join(patients[:3])}); "
            f"expected at least {wanted}, since no patient is in two of the sets {', '.join(used)} "
            "(--split 1 0 0 makes a training set alone)"
        )
    return split_patients(sorted(set(patients)), (), shares, seed)
