"""The one error of reading checkpoints."""


class CheckpointError(ValueError):
    """A checkpoint is damaged, is of an unknown kind, or asks for what is not allowed. Nothing of it was executed."""


def shortened(value: object, limit: int = 80) -> str:
    """Text from a file, fit for a message."""
    text = value if isinstance(value, str) else type(value).__name__
    return repr(text if len(text) <= limit else text[:limit] + "...")
