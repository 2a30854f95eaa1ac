"""The exceptions for errors that the user can fix."""


class UserError(ValueError):
    """One sentence that says what is wrong and what to do; the command line prints it and exits with code 2."""


class InvalidRecipeError(UserError):
    """Values that are valid one by one, but make no recipe together; a search draws others in their place."""


class MachineError(RuntimeError):
    """What failed is the machine that a trial ran on, which says nothing about the trial's recipe."""
