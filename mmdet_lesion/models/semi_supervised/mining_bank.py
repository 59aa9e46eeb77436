"""Temporal verification of mined lesions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dist import all_gather_object, get_rank
from torch import Tensor

from ...errors import InputError

__all__ = ["MiningBank"]

# Ages are saved as uint8.
_MOST_VISITS = 255
_NO_ROWS = np.zeros((0, 5), dtype=np.float32)


class MiningBank:
    """The boxes that were mined at the last visits of each image.

    A visit is one mining of an image. A box that comes back at most visits is likely a lesion; one
    that comes and goes is likely noise.

    An image takes no memory unless something was mined at one of its last ``visits`` visits. The
    22,919 key slices of DeepLesion with ``visits=5`` take 5.1 MB in memory and 1.2 MB in a
    checkpoint with 0.5 mined boxes per image and visit, 11.8 MB and 6.1 MB with 3 boxes
    (``pytest -s -k memory tests/test_models/test_semi_supervised/test_mining_bank.py``).

    Args:
        visits: Number of visits that are considered, the current one included, at most 255.
        min_hits: A box is verified if it was mined in at least this many of them; 1 verifies every
            box.
        iou_thr: IoU from which two boxes are the same lesion.

    Raises:
        InputError: A setting is out of range.

    Source: The idea is that of Bai et al., "Exploratory training", IEEE JBHI 2024; their rule may
    differ in its details.
    """

    def __init__(self, visits: int, min_hits: int, iou_thr: float) -> None:
        _check_integer("visits", visits, _MOST_VISITS, str(_MOST_VISITS))
        _check_integer("min_hits", min_hits, visits, f"visits ({visits})")
        if (
            not isinstance(iou_thr, (int, float))
            or isinstance(iou_thr, bool)
            or not 0 < iou_thr <= 1
        ):
            raise InputError(
                f"verification of mined lesions: iou_thr={iou_thr!r}; expected a number above 0, "
                "at most 1"
            )
        self.visits = visits
        self.min_hits = min_hits
        self.iou_thr = iou_thr
        # Rows (age in visits, x1, y1, x2, y2) of each image; one array takes less memory than two.
        self._rows: dict[int | str, np.ndarray] = {}

    def verify(self, key: int | str, boxes: Tensor) -> Tensor:
        """Record the boxes that were mined at a visit of an image, and return which are verified.

        Args:
            key: Identifies the image.
            boxes: Boxes xyxy in coordinates that are the same at every visit of the image,
                shape (K, 4).

        Returns:
            Whether a box with an IoU of at least ``iou_thr`` was mined in at least ``min_hits`` of
            the last ``visits`` visits, this one included, shape (K,), bool, on the CPU.
        """
        new = _to_numpy(boxes)
        return self._compare(new, self._record(key, new))

    def verify_batch(self, keys: Sequence[int | str], boxes: Sequence[Tensor]) -> list[Tensor]:
        """Record the batches of all processes, so that every process has the same bank.

        Visits are recorded in the order of the processes, and of the images in each batch. In
        distributed training, all processes must call this method.

        Args:
            keys: One key for each image of this process.
            boxes: Mined boxes of each image, shape (K, 4).

        Returns:
            The result of :meth:`verify` for each image of this process.
        """
        batches = all_gather_object((list(keys), [_to_numpy(one) for one in boxes]))
        verified = []
        for rank, batch in enumerate(batches):
            for key, new in zip(*batch):
                old = self._record(key, new)
                if rank == get_rank():
                    verified.append(self._compare(new, old))
        return verified

    def _record(self, key: int | str, new: np.ndarray) -> np.ndarray:
        """Add a visit of an image, and return the rows of its earlier visits."""
        key = int(key) if isinstance(key, np.integer) else key
        old = self._rows.pop(key, _NO_ROWS)
        old = old[old[:, 0] < self.visits - 1]
        old[:, 0] += 1
        if len(old) or len(new):
            self._rows[key] = np.concatenate(
                [np.column_stack([np.zeros_like(new[:, 0]), new]), old]
            )
        return old

    def _compare(self, new: np.ndarray, old: np.ndarray) -> Tensor:
        """Return which boxes have enough hits in this visit and the rows of earlier ones."""
        is_hit = np.zeros((len(new), self.visits), dtype=bool)
        is_hit[:, 0] = True
        if len(new) and len(old):
            overlaps = bbox_overlaps(torch.from_numpy(new), torch.from_numpy(old[:, 1:]))
            box, earlier = (overlaps >= self.iou_thr).numpy().nonzero()
            is_hit[box, old[earlier, 0].astype(int)] = True
        return torch.from_numpy(is_hit.sum(axis=1) >= self.min_hits)

    def __len__(self) -> int:
        """Number of images with mined boxes."""
        return len(self._rows)

    def state_dict(self) -> dict[str, Any]:
        """Return the bank as a few tensors.

        Returns:
            ``keys``, a list of the I images with mined boxes; ``counts``, the number of boxes of
            each, shape (I,), int64; ``boxes`` of all images, shape (N, 4), float32; ``ages``, the
            visits of the image since the box was mined, shape (N,), uint8.
        """
        counts = [len(rows) for rows in self._rows.values()]
        rows = np.concatenate([_NO_ROWS, *self._rows.values()])
        return dict(
            keys=list(self._rows),
            counts=torch.tensor(counts, dtype=torch.int64),
            boxes=torch.from_numpy(rows[:, 1:].copy()),
            ages=torch.from_numpy(rows[:, 0].astype(np.uint8)),
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the content by a saved one.

        The settings may differ from those of the saved bank. If ``visits`` is smaller, older boxes
        are dropped; if it is larger, the boxes of further visits are missing at first.

        Args:
            state: What :meth:`state_dict` returned.
        """
        rows = torch.cat([state["ages"][:, None].float(), state["boxes"].float()], dim=1).numpy()
        parts = np.split(rows, np.cumsum(state["counts"].numpy())[:-1]) if state["keys"] else []
        # Copies, since a view of one image would keep the boxes of all images in memory.
        recent = [part[part[:, 0] < self.visits].copy() for part in parts]
        self._rows = {key: part for key, part in zip(state["keys"], recent) if len(part)}


def _to_numpy(boxes: Tensor) -> np.ndarray:
    return boxes.detach().cpu().float().reshape(-1, 4).numpy()


def _check_integer(name: str, value: Any, highest: int, meaning: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= highest:
        raise InputError(
            f"verification of mined lesions: {name}={value!r}; expected an integer from 1 to "
            f"{meaning}"
        )
