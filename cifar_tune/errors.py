"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """One sentence that says what is wrong and what to do; the command line prints it and exits with code 2."""
