"""Exceptions that know who has to do something: the user, or whoever looks after the machine."""


class UserError(ValueError):
    """One sentence that says what is wrong and what to do; the command line prints it and exits with code 2."""

    def __init__(self, sentence: str) -> None:
        """Names in it can come from files: line breaks and codes that a terminal obeys become `�`."""
        super().__init__("".join(character if character.isprintable() else "�" for character in sentence))


class InvalidRecipeError(UserError):
    """Values that are valid one by one, but make no recipe together; a search draws others in their place."""


class MachineError(RuntimeError):
    """What failed is the machine that a trial ran on, which says nothing about the trial's recipe."""


class FaultError(Exception):
    """A fault outside of this program, as such a sentence; guard.py also keeps its traceback, to find the reason."""
