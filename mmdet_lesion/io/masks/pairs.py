"""Assignment of masks to scans by DICOM references and by names, without guessing.

1. A DICOM segmentation or structure set belongs to the series to which it refers.
2. Otherwise, a mask belongs to the scan with the same path below its folder, apart from the suffix
   of the format.
3. Otherwise, it belongs to the scan with the same case: the path without words such as ``image``,
   ``ct``, ``mask`` or ``seg`` at the beginning or end of a name, in lower case, with folders and
   names joined by ``_``. ``case1_ct.nii.gz`` and ``case1_seg.nii.gz``, ``volume-1.nii`` and
   ``segmentation-1.nii``, and ``case1/image.nrrd`` and ``case1/mask.nrrd`` are pairs.

If several scans or several masks have the same case, none of them is used.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Candidate", "Pairing", "case_of", "pair_cases", "role_of"]

_IMAGE_WORDS = {
    *("image", "images", "imagestr", "imagests", "img", "imgs", "imaging", "scan", "scans"),
    *("ct", "cts", "volume", "volumes", "vol", "dicom"),
}
_MASK_WORDS = {
    *("mask", "masks", "seg", "segs", "segmentation", "segmentations", "gt", "rtstruct"),
    *("label", "labels", "labelmap", "labelmaps", "labelstr", "labelsts", "lesion", "lesions"),
    *("roi", "rois", "annotation", "annotations"),
}
# nnU-Net appends the number of the channel.
_WORDS = {*_IMAGE_WORDS, *_MASK_WORDS, "0000"}
_SEPARATORS = re.compile(r"[\s_.\-]+")


@dataclass(frozen=True)
class Candidate:
    """A scan or a mask to pair.

    Args:
        key: Any hashable object that identifies it to the caller, different for all candidates.
        parts: Folders and name below the folder that was searched, without the suffix.
        series: Series Instance UID of a DICOM scan, or those to which a DICOM mask refers.
    """

    key: Any
    parts: tuple[str, ...]
    series: tuple[str, ...] = ()


@dataclass
class Pairing:
    """Result of :func:`pair_cases`.

    Args:
        pairs: Keys of scan and mask.
        images: Keys of scans without a mask.
        masks: Keys of masks without a scan, with the reason.
        ambiguous: Keys of scans and masks that are not used, with the reason.
    """

    pairs: list[tuple[Any, Any]] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    masks: dict[Any, str] = field(default_factory=dict)
    ambiguous: dict[Any, str] = field(default_factory=dict)


def pair_cases(images: Sequence[Candidate], masks: Sequence[Candidate]) -> Pairing:
    """Assign masks to scans by the rules of this module.

    Args:
        images: The scans.
        masks: The masks.

    Returns:
        Pairs, and what is left.
    """
    result = Pairing()
    by_series = _group((image, series) for image in images for series in image.series)
    free = []
    referred = defaultdict(list)
    for mask in masks:
        found = {image.key: image for series in mask.series for image in by_series.get(series, ())}
        if found:
            referred[tuple(found)].append((mask, list(found.values())))
        else:
            free.append(mask)
    used: set[Any] = set()
    for group in referred.values():
        candidates = group[0][1]
        used.update(image.key for image in candidates)
        _settle(result, candidates, [mask for mask, _ in group], "refer to the same series")
    rest = [image for image in images if image.key not in used]
    rules: tuple[tuple[Callable[[Candidate], Hashable], str], ...] = (
        (lambda candidate: candidate.parts, "have the same name"),
        (lambda candidate: case_of(candidate.parts), "belong to the same case by their names"),
    )
    for rule, reason in rules:
        rest, free = _pair_by(rule, reason, result, rest, free)
    result.images += [image.key for image in rest]
    for mask in free:
        result.masks[mask.key] = (
            "refers to a series that is not among the scans"
            if mask.series
            else f"no scan has its name or the case {case_of(mask.parts)!r}"
        )
    return result


def _pair_by(
    rule: Callable[[Candidate], Hashable],
    reason: str,
    result: Pairing,
    images: Sequence[Candidate],
    masks: Sequence[Candidate],
) -> tuple[list[Candidate], list[Candidate]]:
    """Pair by a rule, and return the scans and masks to which it assigns nothing."""
    own = _group((image, rule(image)) for image in images)
    others = _group((mask, rule(mask)) for mask in masks)
    both = own.keys() & others.keys()
    for name in sorted(both, key=str):
        _settle(result, own[name], others[name], reason)
    return (
        [image for image in images if rule(image) not in both],
        [mask for mask in masks if rule(mask) not in both],
    )


def _settle(
    result: Pairing, images: Sequence[Candidate], masks: Sequence[Candidate], reason: str
) -> None:
    """Add a pair if there is one scan and one mask; otherwise none is used."""
    if len(images) == len(masks) == 1:
        result.pairs.append((images[0].key, masks[0].key))
        return
    names = [" / ".join(one.parts) for one in (*images, *masks)]
    text = (
        f"{len(images)} scans and {len(masks)} masks {reason} ({', '.join(names[:4])}"
        f"{', …' if len(names) > 4 else ''}); expected one of each"
    )
    result.ambiguous.update((one.key, text) for one in (*images, *masks))


def _group(items: Iterable[tuple[Candidate, Hashable]]) -> dict[Hashable, list[Candidate]]:
    groups: dict[Hashable, list[Candidate]] = defaultdict(list)
    for candidate, name in items:
        groups[name].append(candidate)
    return groups


def case_of(parts: Sequence[str], lower: bool = True) -> str:
    """Return the case of a path: its names without words for images and masks.

    Args:
        parts: Folders and name without the suffix.
        lower: Whether to convert it to lower case, for comparison.
    """
    kept: list[str] = []
    for part in parts:
        words = [word for word in _SEPARATORS.split(part) if word]
        while words and words[-1].lower() in _WORDS:
            words.pop()
        while words and words[0].lower() in _WORDS:
            words.pop(0)
        name = "_".join(words)
        # A folder for each case often contains files with the name of the case.
        if name and (not kept or name.lower() != kept[-1].lower()):
            kept.append(name)
    case = "_".join(kept)
    return case.lower() if lower else case


def role_of(parts: Sequence[str]) -> str | None:
    """Return what a path says that the file is, by the last word that says it.

    Args:
        parts: Folders and name without the suffix.

    Returns:
        ``'image'``, ``'mask'``, or None.
    """
    for part in reversed(parts):
        words = [word for word in _SEPARATORS.split(part.lower()) if word]
        for word in [*words[:-2:-1], *words[:1]]:
            if word in _MASK_WORDS:
                return "mask"
            if word in _IMAGE_WORDS:
                return "image"
    return None
