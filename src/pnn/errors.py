"""The project's exceptions."""


class UserError(ValueError):
    """A mistake of the user's: the message says name, value, limit and remedy; commands exit with code 2."""


class Unavailable(Exception):
    """A source of data did not deliver; the message is the reason."""
