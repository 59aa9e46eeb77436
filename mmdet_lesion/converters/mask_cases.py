"""Cases of a data set: scans with their masks and patients, and all other paths."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from ..errors import InputError
from ..io import Problem
from ..io.masks import Candidate, MaskSource, Pairing, SkippedFile, find_masks, pair_cases
from ..io.masks.find import path_parts
from ..io.masks.pairs import case_of, role_of
from ..io.scans import ScanSource, find_scans_below, unique_names
from ..io.scans.folder import list_files_below
from .mask_task import Case

__all__ = ["CaseList", "Unused", "find_cases", "patient_id"]


@dataclass(frozen=True)
class Unused:
    """A path that is not used.

    Args:
        path: The file or folder.
        role: ``'scan'``, ``'mask'`` or ``'file'``.
        reason: Why it is not used.
        kind: Short name of the reason.
    """

    path: Path
    role: str
    reason: str
    kind: str


@dataclass
class CaseList:
    """Result of :func:`find_cases`.

    Args:
        images: Folder of the scans.
        masks: Folder of the masks.
        out: Folder of the converted data.
        cases: The cases, sorted by path.
        unused: All other paths.
    """

    images: Path
    masks: Path
    out: Path
    cases: list[Case] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)

    def relative(self, path: Path) -> str:
        """Return a path in the folder of scans or masks, with the name of this folder."""
        for root in (self.images, self.masks):
            if path.is_relative_to(root):
                return (Path(root.resolve().name) / path.relative_to(root)).as_posix()
        return path.as_posix()

    def problems(self) -> list[Problem]:
        """Return the unused paths as problems."""
        return [
            Problem(self.relative(one.path), None, one.reason, f"{one.role} skipped", one.kind)
            for one in self.unused
        ]


@dataclass(frozen=True)
class _Image:
    """A scan that was found.

    Args:
        source: The scan.
        parts: Folders and name below the folder of scans, without the suffix.
        series: Series Instance UID of a DICOM scan.
        patient: Patient ID of a DICOM scan.
    """

    source: ScanSource
    parts: tuple[str, ...]
    series: str | None = None
    patient: str = ""


def find_cases(
    images: Path,
    masks: Path,
    out: Path,
    without_mask: str = "skip",
    patient: str | None = None,
) -> CaseList:
    """Find scans and masks, and assign masks to scans by :func:`~.io.masks.pair_cases`.

    Args:
        images: Folder of scans, at any depth.
        masks: Folder of masks, at any depth; may be that of the scans, or lie in it. In a common
            folder, names tell masks from scans.
        out: Folder of the converted data, which is not searched.
        without_mask: What scans without a mask are: ``'skip'``, ``'healthy'`` or ``'unlabeled'``.
        patient: Regular expression that finds the patient in the path of a scan below ``images``.

    Returns:
        The cases. Hidden files are ignored.

    Raises:
        InputError: There is no pair, or ``patient`` is invalid or does not match a path.
    """
    pattern = _compile(patient)
    found = CaseList(images, masks, out)
    scans, used = _find_images(found)
    sources = _find_masks(found, used)
    pairing = pair_cases(
        [Candidate(one, one.parts, (one.series,) if one.series else ()) for one in scans],
        [Candidate(one, path_parts(one.path, masks), one.series) for one in sources],
    )
    if not pairing.pairs:
        raise InputError(_no_pairs(found, scans, sources, pairing))
    _add_unpaired(found, pairing, without_mask)
    mask_of = dict(pairing.pairs)
    kept = [*mask_of, *(pairing.images if without_mask != "skip" else ())]
    kept.sort(key=lambda image: (image.parts, image.series or ""))
    names = unique_names(
        [case_of(image.parts, lower=False) or images.resolve().name for image in kept]
    )
    for image, name in zip(kept, names):
        mask = mask_of.get(image)
        owner = _patient_of(found, image, pattern)
        labeled = mask is not None or without_mask == "healthy"
        found.cases.append(Case(name, image.source, image.series, owner, mask, labeled))
    return found


def _compile(patient: str | None) -> re.Pattern[str] | None:
    if patient is None:
        return None
    try:
        return re.compile(patient)
    except re.error as error:
        raise InputError(
            f"--patient is {patient!r}; expected a regular expression ({error})"
        ) from None


def _is_inside(path: Path, folder: Path, other: Path) -> bool:
    """Return whether a path lies in ``folder``, which is a subfolder of ``other``."""
    folder, other = folder.resolve(), other.resolve()
    return (
        folder != other and folder.is_relative_to(other) and path.resolve().is_relative_to(folder)
    )


def _find_images(found: CaseList) -> tuple[list[_Image], set[Path]]:
    """Find the scans, and return them and the files of all of them."""
    images: list[_Image] = []
    used: set[Path] = set()
    common = found.images.resolve() == found.masks.resolve()
    for source in find_scans_below(found.images):
        if _is_inside(source.path, found.masks, found.images):
            continue
        if source.kind == "dicom":
            used.update(source.files)
            parts = path_parts(source.path, found.images, is_file=False)
            images.append(_Image(source, parts, source.series, patient_id(source)))
            continue
        parts = path_parts(source.path, found.images)
        twin = found.masks / source.path.relative_to(found.images)
        if role_of(parts) == "mask" and (common or not twin.is_file()):
            continue
        images.append(_Image(source, parts))
        used.update(source.files)
    return images, used


def patient_id(source: ScanSource) -> str:
    """Read the Patient ID of a DICOM series; '' if no header has one."""
    for path in source.files:
        try:
            data = pydicom.dcmread(path, specific_tags=["PatientID"], stop_before_pixels=True)
        except Exception:
            # Reading the scan reports damaged files, which raise any exception in pydicom.
            continue
        return str(data.get("PatientID") or "")
    return ""


def _find_masks(found: CaseList, used: set[Path]) -> list[MaskSource]:
    """Find the masks, and note all files that are neither a mask nor a part of a scan."""
    common = found.images.resolve() == found.masks.resolve()
    own = [
        path
        for path in _visible(found.masks, found.out)
        if path not in used and not _is_inside(path, found.images, found.masks)
    ]
    masks, others = find_masks(own)
    if common:
        named = [role_of(path_parts(mask.path, found.masks)) == "mask" for mask in masks]
        others += [
            SkippedFile(mask.path, "a format that is not read as a scan, and not named like a mask")
            for mask, is_named in zip(masks, named)
            if mask.kind == "image" and not is_named
        ]
        masks = [mask for mask, is_named in zip(masks, named) if mask.kind != "image" or is_named]
    else:
        rest = [
            path
            for path in _visible(found.images, found.out)
            if path not in used and not path.resolve().is_relative_to(found.masks.resolve())
        ]
        misplaced, unknown = find_masks(rest)
        others += [SkippedFile(one.path, "a mask in the folder of scans") for one in misplaced]
        others += unknown
    _add_unused_files(found, others)
    return masks


def _visible(folder: Path, out: Path) -> list[Path]:
    """List the files below a folder, without hidden ones and converted data."""
    return [
        path
        for path in list_files_below(folder)
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not path.resolve().is_relative_to(out.resolve())
    ]


def _add_unused_files(found: CaseList, others: Iterable[SkippedFile]) -> None:
    """Note files that are not used; several of a folder for the same reason are one entry."""
    groups: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for one in others:
        groups[one.path.parent, one.reason].append(one.path)
    for (folder, reason), paths in groups.items():
        path = paths[0]
        if len(paths) > 1:
            path, reason = folder, f"{len(paths)} files such as {path.name}: {reason}"
        found.unused.append(Unused(path, "file", reason, "other file"))


def _add_unpaired(found: CaseList, pairing: Pairing, without_mask: str) -> None:
    for mask, reason in pairing.masks.items():
        found.unused.append(Unused(mask.path, "mask", reason, "mask without scan"))
    if without_mask == "skip":
        reason = "no mask belongs to it; expected a mask, or --without-mask healthy"
        found.unused += [
            Unused(image.source.path, "scan", reason, "scan without mask")
            for image in pairing.images
        ]
    for item, reason in pairing.ambiguous.items():
        is_scan = isinstance(item, _Image)
        path = item.source.path if is_scan else item.path
        found.unused.append(Unused(path, "scan" if is_scan else "mask", reason, "ambiguous names"))


def _patient_of(found: CaseList, image: _Image, pattern: re.Pattern[str] | None) -> str:
    if pattern is not None:
        path = image.source.path.relative_to(found.images).as_posix()
        match = pattern.search(path)
        if match is None:
            raise InputError(
                f"--patient {pattern.pattern!r} matches nothing in {path}; expected a regular "
                "expression that finds the patient in the path of every scan"
            )
        return match[1] if pattern.groups else match[0]
    if image.patient:
        return image.patient
    names = (case_of([part], lower=False) for part in image.parts)
    return next(filter(None, names), "") or found.images.resolve().name


def _no_pairs(
    found: CaseList, images: Sequence[_Image], masks: Sequence[MaskSource], pairing: Pairing
) -> str:
    """Return why there is no pair."""
    if not images:
        return f"{found.images} contains no scan; expected DICOM, MetaImage, NIfTI or NRRD files"
    if not masks:
        return (
            f"{found.masks} contains no mask; expected label maps (MetaImage, NIfTI, NRRD), DICOM "
            "segmentations or RT structure sets, in a common folder with names such as case1_mask"
        )
    if pairing.ambiguous:
        return f"no scan has a mask of its own: {next(iter(pairing.ambiguous.values()))}"
    image, mask = images[0].parts, path_parts(masks[0].path, found.masks)
    return (
        f"no mask belongs to a scan by its name: the first scan is {'/'.join(image)} (case "
        f"{case_of(image)!r}), the first mask {'/'.join(mask)} (case {case_of(mask)!r}); expected "
        "equal cases, such as those of case1_ct and case1_mask"
    )
