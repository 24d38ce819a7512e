"""The one exception for problems that the user can fix."""


class InputError(Exception):
    """A problem with what the user gave: a path, a file, an option.

    The message is one line that names the thing, says what was expected, and what to do. The command line prints it
    without a traceback and exits with code 2.
    """
