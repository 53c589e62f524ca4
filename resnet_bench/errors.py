"""The error that users see, and how to keep passwords out of its text."""

import re


class UserError(Exception):
    """An error that the user can mend. Its text is one sentence that says what is wrong and what to do.

    The command line and `pytest benchmarks` print it without a traceback and exit with status 2.
    """


def without_credentials(text: str) -> str:
    """The text with `***` in place of user name and password in each address: `https://***@host`."""
    return re.sub(r"((?:[\w+.-]+://)?)\S*@", r"\1***@", text)
