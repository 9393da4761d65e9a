"""Why an image cannot be had, under the reasons that kubelets write into a container's waiting state."""

from __future__ import annotations

from glebe.node.contracts import ImageError

__all__ = ["BrokenImage", "ImageError", "PullError"]


class PullError(ImageError):
    """ErrImagePull: it was looked for and could not be had."""

    def __init__(self, message: str) -> None:
        super().__init__("ErrImagePull", message)


class BrokenImage(PullError):
    """What came is not what it says it is, or is not safe to unpack."""
