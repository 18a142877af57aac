"""The one exception that stands for a user's mistake."""

_LONGEST = 1000
"""Characters."""


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong, and what to do.

    Names and values in it may come from a file that somebody else has written: what is no printable character is escaped, so that it
    neither ends the line nor commands the terminal, and what is very long is cut.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
        return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
