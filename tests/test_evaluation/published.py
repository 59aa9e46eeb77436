"""Published evaluation protocols, implemented as simple loops over detections and lesions."""

import numpy as np
from scipy.interpolate import interp1d


def overlap(box, lesion):
    """Return the IoU of two boxes with inclusive pixels, in the precision of the first box."""
    box, lesion = np.asarray(box)[:4], np.asarray(lesion, dtype=float)[:4]
    width = max(min(box[2], lesion[2]) - max(box[0], lesion[0]) + 1.0, 0.0)
    height = max(min(box[3], lesion[3]) - max(box[1], lesion[1]) + 1.0, 0.0)
    area = (box[2] - box[0] + 1.0) * (box[3] - box[1] + 1.0)
    lesion_area = (lesion[2] - lesion[0] + 1.0) * (lesion[3] - lesion[1] + 1.0)
    return width * height / max(1e-6, lesion_area + area - width * height)


def walk(found, lesions, num_scans, iou_of, iou_thr):
    """Return the curve of ``(scan, score, detection)`` over ``{scan: [lesion, ...]}``."""
    order = np.argsort(np.array([score for _, score, _ in found]))[::-1]
    hit = {scan: [False] * len(rows) for scan, rows in lesions.items()}
    hits = misses = duplicates = 0
    curve = []
    for i in order:
        scan, score, detection = found[i]
        missed = True
        for j, lesion in enumerate(lesions[scan]):
            if iou_of(detection, lesion) >= iou_thr:
                missed = False
                if hit[scan][j]:
                    duplicates += 1
                else:
                    hit[scan][j] = True
                    hits += 1
        misses += missed
        curve.append((hits, misses, duplicates, score))
    total = sum(map(len, lesions.values()))
    hits, misses, duplicates, scores = (np.array(column) for column in zip(*curve, strict=True))
    return {
        "sensitivity": hits / total,
        "fps": misses / num_scans,
        "precision": hits / (hits + misses + duplicates),
        "scores": scores,
        "counts": (hits[-1], misses[-1], total - hits[-1], duplicates[-1], total),
    }


def voc_ap(recall, precision):
    area, previous = 0.0, 0.0
    for i, value in enumerate(recall):
        if value != previous:
            area += (value - previous) * max(precision[i:])
            previous = value
    return area


def p3d(detections, ground_truth, rates, iou_thr=0.5):
    def iou_of(tracklet, lesion):
        z, box = lesion
        on_slice = [row for own_z, row in tracklet if own_z == z]
        return overlap(on_slice[0], box) if on_slice else 0.0

    lesions = {
        key.replace(".annot", ""): [(z, box) for z in by_slice for box in by_slice[z]]
        for key, by_slice in ground_truth.items()
    }
    found = [
        (name, np.array([row[4] for _, row in tracklet]).max(), tracklet)
        for name, tracklets in detections.items()
        for tracklet in tracklets
    ]
    curve = walk(found, lesions, len(lesions), iou_of, iou_thr)
    with np.errstate(all="ignore"):
        interpolate = interp1d(curve["fps"], curve["sensitivity"], fill_value="extrapolate")
        curve["values"] = interpolate(np.array(rates))
    curve["ap"] = voc_ap(curve["sensitivity"], curve["precision"])
    return curve


def key_slices(detections, ground_truth, rates, iou_thr=0.5):
    lesions = {key: list(rows) for key, rows in ground_truth.items()}
    found = [(key, row[4], row) for key in ground_truth for row in detections.get(key, [])]
    curve = walk(found, lesions, len(lesions), overlap, iou_thr)
    fps, sensitivity = curve["fps"], curve["sensitivity"]
    inside = interp1d(fps, sensitivity, bounds_error=False, fill_value=(0.0, sensitivity[-1]))
    curve["values"] = inside(np.array(rates))
    return curve


def box3d(detections, ground_truth, rates, overlap="iobb", iou_thr=0.3):
    """Return the box3d curve with sensitivities interpolated by :func:`read_upper`."""

    def overlap_of(box, lesion):
        box, lesion = np.asarray(box)[:6], np.asarray(lesion, dtype=float)
        inner, size, lesion_size = 1.0, 1.0, 1.0
        for axis in range(3):
            low, high = box[axis], box[axis + 3]
            first, last = lesion[axis], lesion[axis + 3]
            inner *= max(min(high, last) - max(low, first) + 1.0, 0.0)
            size *= high - low + 1.0
            lesion_size *= last - first + 1.0
        return inner / (size if overlap == "iobb" else size + lesion_size - inner)

    lesions = {key: list(rows) for key, rows in ground_truth.items()}
    found = [(key, row[6], row) for key in ground_truth for row in detections.get(key, [])]
    curve = walk(found, lesions, len(lesions), overlap_of, iou_thr)
    curve["values"] = [read_upper(curve["fps"], curve["sensitivity"], rate) for rate in rates]
    return curve


def read_upper(fps, sensitivity, rate):
    """Interpolate linearly: the upper end of a step, 0 to the left, the last value to the right."""
    before = [i for i, value in enumerate(fps) if value <= rate]
    if not before:
        return 0.0
    i = before[-1]
    if i + 1 == len(fps) or fps[i] == rate:
        return sensitivity[i]
    share = (rate - fps[i]) / (fps[i + 1] - fps[i])
    return sensitivity[i] + share * (sensitivity[i + 1] - sensitivity[i])


def luna16(candidates, nodules, excluded, series, rates, max_detections=100):
    """Return LUNA16's figures by loops over candidates, nodules and thresholds.

    ``entries`` are ``(series, is a nodule, probability or None for a missed nodule)``.
    """
    entries = []
    counts = dict.fromkeys(("candidates", "ignored", "duplicates"), 0)
    for name in series:
        detections = [tuple(map(float, row)) for row in candidates.get(name, [])]
        if len(detections) > max_detections:
            first_out = sorted((row[3] for row in detections), reverse=True)[max_detections]
            detections = [row for row in detections if row[3] > first_out][:max_detections]
        counts["candidates"] += len(detections)
        pool = set(range(len(detections)))
        findings = [(row, True) for row in nodules.get(name, [])]
        findings += [(row, False) for row in excluded.get(name, [])]
        for (x, y, z, diameter), included in findings:
            radius = (10.0 if diameter < 0 else diameter) / 2.0
            inside = [
                i
                for i, row in enumerate(detections)
                if (x - row[0]) ** 2 + (y - row[1]) ** 2 + (z - row[2]) ** 2 < radius**2
            ]
            if included:
                best = max((detections[i][3] for i in inside), default=None)
                entries.append((name, True, best))
                counts["duplicates"] += max(len(inside) - 1, 0)
            else:
                counts["ignored"] += len(pool & set(inside))
            pool -= set(inside)
        entries += [(name, False, detections[i][3]) for i in sorted(pool)]
    result = luna16_figures(entries, len(series), rates)
    return result | counts | {"entries": entries}


def luna16_figures(entries, num_scans, rates):
    """Return the operating points of the ROC curve, with integer counts of false positives."""
    positives = [p for _, is_nodule, p in entries if is_nodule and p is not None]
    negatives = [p for _, is_nodule, p in entries if not is_nodule]
    total = sum(is_nodule for _, is_nodule, _ in entries)
    fps, sensitivity = [0.0], [0.0]
    for threshold in sorted({*positives, *negatives}, reverse=True):
        fps.append(sum(p >= threshold for p in negatives) / num_scans)
        sensitivity.append(sum(p >= threshold for p in positives) / total)
    return {
        "true_positives": len(positives),
        "false_positives": len(negatives),
        "false_negatives": total - len(positives),
        "values": [read_upper(fps, sensitivity, rate) for rate in rates],
    }


def resampled(entries, names, drawn):
    """Return the entries of the drawn scans, with repetition."""
    by_name = {name: [entry for entry in entries if entry[0] == name] for name in names}
    return [entry for i in drawn for entry in by_name[names[i]]]
