"""The exception for errors that the user can fix."""


class UserError(ValueError):
    """One sentence that says what is wrong and what to do; the command line prints it and exits with code 2."""
