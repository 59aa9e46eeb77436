"""The exception for invalid user input, and the recognition of full disks."""

import errno

# Error numbers of a write that does not fit.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class InputError(ValueError):
    """Raised for invalid user input: a file, setting or argument.

    The message is one sentence that says what is wrong and where. The command-line tools print the
    message alone; other exceptions are bugs and keep their traceback.
    """


def is_disk_full(error: BaseException) -> bool:
    """Return whether a write failed because the disk, a quota or the largest file size is full."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL
