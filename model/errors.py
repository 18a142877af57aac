"""The one exception that stands for a user's mistake."""


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong, and what to do."""
