"""Why a container does not start: the states, reasons and events that users know. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from glebe.kube.errors import ApiError
from glebe.node.contracts import CreateError, ImageError, VolumeError
from glebe.node.values.environment import ConfigError

CONFIG_ERROR = "CreateContainerConfigError"
CREATE_ERROR = "CreateContainerError"
RUN_ERROR = "RunContainerError"
HOOK_ERROR = "PostStartHookError"
START_ERROR = "StartError"  # of an end: the command could not be started
BACK_OFF = "BackOff"
PULL_ERROR, PULL_BACK_OFF = "ErrImagePull", "ImagePullBackOff"
LOST = "ContainerStatusUnknown"
LOST_MESSAGE = "The container could not be located when the pod was terminated"


@dataclass(frozen=True, slots=True)
class Trouble:
    """``reason`` and ``message`` of the container's waiting state, and the warnings (reason, message) to record."""

    reason: str
    message: str
    events: tuple[tuple[str, str], ...]


def trouble_of(error: Exception, image: str) -> Trouble:
    """What is said about a container that could not be made."""
    text = str(error)
    if isinstance(error, ImageError):
        return _image(error.reason, text, image)
    reason = CREATE_ERROR
    if isinstance(error, ConfigError | ApiError | VolumeError):
        reason = CONFIG_ERROR
    elif isinstance(error, CreateError):
        reason = CREATE_ERROR
    elif isinstance(error, OSError):
        text = os_text(error)
    return Trouble(reason, text, (("Failed", f"Error: {text}"),))


def os_text(error: OSError) -> str:
    """An error of the operating system, as it says it (``no space left on device``)."""
    words = (error.strerror or str(error)).lower()
    return f"{error.filename}: {words}" if error.filename else words


def _image(reason: str, text: str, image: str) -> Trouble:
    first = {
        "ErrImageNeverPull": ("ErrImageNeverPull", text),
        "InvalidImageName": ("InspectFailed", f'Failed to apply default image tag "{image}": {text}'),
        "ImageInspectError": ("InspectFailed", text),
        PULL_ERROR: ("Failed", f'Failed to pull image "{image}": {text}'),
    }.get(reason, ("Failed", text))
    message = first[1] if reason == "InvalidImageName" else text
    return Trouble(reason, message, (first, ("Failed", f"Error: {reason}")))


def pull_back_off(image: str, before: Trouble) -> Trouble:
    """While the next attempt to pull waits for its time."""
    text = f'Back-off pulling image "{image}"'
    events = ((BACK_OFF, text), ("Failed", f"Error: {PULL_BACK_OFF}"))
    return Trouble(PULL_BACK_OFF, f"{text}: {before.reason}: {before.message}", events)
