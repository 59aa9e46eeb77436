"""Opening a volume of the store on behalf of a transform."""

from __future__ import annotations

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.volume_store import StoredVolume, open_volume

__all__ = ["open_stored_volume"]


def open_stored_volume(path: str) -> StoredVolume:
    """Open a volume for lazy reading.

    Opening takes a tenth of a millisecond, so handles are not kept.

    Raises:
        InputError: There is no such file, or it is no volume.
    """
    try:
        return open_volume(path)
    except FileNotFoundError:
        raise InputError(
            f"the volume {path} is not there; expected a file written by "
            "a converter of tools/dataset_converters (--resume adds missing ones)"
        ) from None
