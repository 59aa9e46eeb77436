"""The exception for input that a user can mend."""


class InputError(ValueError):
    """A file, setting or argument is wrong; the message is one sentence that says which and how.

    ``tools/train.py`` and ``tools/test.py`` print the message alone; other exceptions keep their
    traceback, since they are bugs.
    """
