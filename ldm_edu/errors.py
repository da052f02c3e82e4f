"""Errors a user can act on: each says what was wrong, the value found and what would be right.

The command line prints them as one line and exits with code 2.
"""


class LdmEduError(ValueError):
    """Base of every error that ldm_edu raises on purpose."""


class InputError(LdmEduError):
    """An argument has the wrong shape, type, range or name."""


class DataError(LdmEduError):
    """A data set is unknown, missing, unreadable or in the wrong layout."""


class CheckpointError(LdmEduError):
    """A checkpoint is missing, damaged, unsafe, or belongs to another model."""


class StorageError(LdmEduError):
    """Writing failed: no permission, no space, or a path that is in the way."""


def require_sizes(config: object, *names: str) -> None:
    """Raise InputError unless these fields of a config are at least 1, each of a tuple too."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, tuple):
            if min(value, default=0) < 1:
                raise InputError(f"{name} must be some, each at least 1, found {value}")
        elif value < 1:
            raise InputError(f"{name} must be at least 1, found {value}")
