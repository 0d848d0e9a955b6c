"""Errors that a user can act on.

Every message says what is wrong and what to do next. The command line prints the message alone and
exits with status 2; anything that is not a `Ttt3rError` is a bug and keeps its traceback.
"""


class Ttt3rError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(Ttt3rError):
    """A video, image or array that cannot be used as given."""


class SettingError(Ttt3rError, ValueError):
    """An option or argument whose value makes no sense."""


class WeightsError(Ttt3rError):
    """A weight file that is missing, unsafe, or does not fit the network."""


class RunError(Ttt3rError):
    """A run folder that cannot be written, read or resumed."""


class SessionError(Ttt3rError):
    """A saved session that cannot be restored, or a session used in the wrong way."""


class CapacityError(Ttt3rError):
    """More memory was asked for than there is."""


class MissingExtraError(Ttt3rError, ImportError):
    """An optional dependency that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed. "
            f"Install it with: pip install 'ttt3r[{extra}]'"
        )
