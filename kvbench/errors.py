"""The error that the command line prints as one line."""

__all__ = ["KvbenchError"]


class KvbenchError(ValueError):
    """Something that the person at the keyboard can mend: it says what was wrong, where, and what to do."""
