"""A person in an image, and where people come from: files, videos, or a renderer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

__all__ = ["People", "Person"]


@dataclass(frozen=True)
class Person:
    """One person in one image, in the 16 joints of MPII's order, which is that of SAP-Net.

    Attributes:
        image: uint8 `[H, W, 3]`, RGB: the image, or a part of it that has the box in it.
        centre: float32 `[2]`, centre of the square box around the person, pixels (x, y); the centre of the image's
            first pixel is (0, 0).
        side: length of the box's sides, pixels.
        joints: float32 `[16, 2]`, pixels as `centre`; 0 where not annotated.
        annotated: bool `[16]`: joints that are known, hidden ones too.
        visible: bool `[16]`: those of them that are seen in the image, as far as the source tells.
        pose: float32 `[16, 3]`, millimetres relative to the pelvis, camera frame (x right, y down, z forward); joint 7
            is the middle of the shoulders. None where there is no 3D pose.
        name: what it is called in messages: the image's file, its frame.
        subject, action: who it is and what is done; empty where not told.
    """

    image: np.ndarray
    centre: np.ndarray
    side: float
    joints: np.ndarray
    annotated: np.ndarray
    visible: np.ndarray
    pose: np.ndarray | None = None
    name: str = ""
    subject: str = ""
    action: str = ""


class People(Protocol):
    """People one can ask for by number, each time with the same answer."""

    @property
    def labelled(self) -> bool:
        """Whether all of them have a 3D pose."""
        ...

    @property
    def source(self) -> str:
        """Where they come from, for messages."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Person: ...
