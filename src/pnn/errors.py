"""The one exception for mistakes a user can make and mend."""


class UserError(ValueError):
    """A mistake of the user's: the message says name, value, limit and remedy; commands exit with code 2."""
