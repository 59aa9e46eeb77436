"""The exception for invalid user input."""


class InputError(ValueError):
    """Raised for invalid user input: a file, setting or argument.

    The message is one sentence that says what is wrong and where. The command-line tools print the
    message alone; other exceptions are bugs and keep their traceback.
    """
