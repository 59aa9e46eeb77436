"""The published evaluation rules as slow loops, one detection and one lesion at a time."""

import numpy as np
from scipy.interpolate import interp1d


def overlap(box, lesion):
    """IoU of two boxes that count pixels inclusively, the box in its own precision."""
    box, lesion = np.asarray(box)[:4], np.asarray(lesion, dtype=float)[:4]
    width = max(min(box[2], lesion[2]) - max(box[0], lesion[0]) + 1.0, 0.0)
    height = max(min(box[3], lesion[3]) - max(box[1], lesion[1]) + 1.0, 0.0)
    area = (box[2] - box[0] + 1.0) * (box[3] - box[1] + 1.0)
    lesion_area = (lesion[2] - lesion[0] + 1.0) * (lesion[3] - lesion[1] + 1.0)
    return width * height / max(1e-6, lesion_area + area - width * height)


def walk(found, lesions, num_scans, iou_of, iou_thr):
    """Curve of ``(scan, score, detection)`` over ``{scan: [lesion, ...]}``."""
    order = np.argsort(np.array([score for _, score, _ in found]))[::-1]
    hit = {scan: [False] * len(rows) for scan, rows in lesions.items()}
    hits = misses = doubles = 0
    curve = []
    for i in order:
        scan, score, detection = found[i]
        missed = True
        for j, lesion in enumerate(lesions[scan]):
            if iou_of(detection, lesion) >= iou_thr:
                missed = False
                if hit[scan][j]:
                    doubles += 1
                else:
                    hit[scan][j] = True
                    hits += 1
        misses += missed
        curve.append((hits, misses, doubles, score))
    total = sum(map(len, lesions.values()))
    hits, misses, doubles, scores = (np.array(column) for column in zip(*curve, strict=True))
    return {
        "sensitivity": hits / total,
        "fps": misses / num_scans,
        "precision": hits / (hits + misses + doubles),
        "scores": scores,
        "counts": (hits[-1], misses[-1], total - hits[-1], doubles[-1], total),
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
