"""The errors that users see, and how to keep passwords out of their text."""

import re

UNFIT = 3
"""Exit status of a training that cannot run on this machine; on another one it may."""


class UserError(Exception):
    """An error that the user can mend. Its text is one sentence that says what is wrong and what to do.

    The command line and `pytest benchmarks` print it without a traceback and exit with status 2.
    """

    status = 2


class UnfitError(UserError):
    """The machine lacks what a study's training needs: the images, the compiler."""

    status = UNFIT


def without_credentials(text: str) -> str:
    """The text with `***` in place of user name and password in each address: `https://***@host`."""
    return re.sub(r"((?:[\w+.-]+://)?)\S*@", r"\1***@", text)
