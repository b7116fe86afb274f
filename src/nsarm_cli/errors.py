"""Errors a user can cause, each with the exit code the command line returns.

A message names the thing, the reason and the remedy in one sentence. Anything
that is not an `NsarmError` is our bug and keeps its traceback (exit code 1).
"""


class NsarmError(Exception):
    """Base of every error that is shown to the user as one sentence."""

    exit_code = 1


class ImageError(NsarmError):
    """A picture is missing, unreadable, unsupported, or its output cannot be written."""

    exit_code = 3


class WeightsError(NsarmError):
    """Weights are missing, damaged, or do not belong to the model."""

    exit_code = 4


class DeviceError(NsarmError):
    """The device does not exist or cannot hold the work."""

    exit_code = 5


class ConfigError(NsarmError):
    """A training, model or catalogue file is wrong."""

    exit_code = 6
