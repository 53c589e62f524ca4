"""The one error a user is meant to see."""

import re


class UserError(Exception):
    """Something the user can mend: one sentence that says what is wrong and what to do.

    The command line prints it without a traceback and exits with status 2; `pytest benchmarks` does the same.
    """


def without_credentials(text: str) -> str:
    """The text with `***` for user and password in its addresses."""
    return re.sub(r"((?:[\w+.-]+://)?)\S*@", r"\1***@", text)
