"""From 2D keypoints to 3D poses while they come: the same networks and units as :mod:`.predict`, a frame at a time.

What needs a whole video is done with what has been: a keypoint that was not found stays where it was last seen, and the
size of a pose that a network in image space answers is the median of the last second.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import skeletons
from ..backbones import BackboneStream
from ..data.formats.keypoint_lines import PersonSeen, known_layout
from ..data.formats.keypoint_maps import LAYOUTS
from ..data.formats.keypoint_track import Keypoints
from ..errors import ArgumentError, CheckpointError, check_name
from ..refine import fit_skeleton
from .predict import Lifter, lifting_call, limb_lengths, network_input

if TYPE_CHECKING:
    from .refining import LoadedRefiner

__all__ = ["KeypointStream", "StreamedPose"]

_MOST = 300  # people who are followed at a time; of one more, the one who was not seen for longest has left
_RATE = 30.0  # frames per second, where nobody tells


@dataclass(frozen=True)
class StreamedPose:
    """The answer to a frame of a person.

    Attributes:
        person: who, as it was told.
        frame: its number.
        tag: what was given with the frame.
        positions: float32 `[J, 3]`: x right, y down, z forward (camera frame) relative to the pelvis, metres; None for
            a frame in which no keypoint was found.
        lag: frames of this person that have come after it.
        scale: metres per unit of the network's answer: 1 for "camera" targets, nominal for others.
    """

    person: Hashable
    frame: int
    tag: Any
    positions: np.ndarray | None
    lag: int
    scale: float = 1.0


class KeypointStream:
    """Keypoints of any number of people in, one frame of one person at a time; poses out, `lag` frames later.

    With the full lag, poses are those of :func:`~structloss.harness.predict.predict` on the whole video, to rounding,
    where the network answers in the camera's space and either all keypoints are found or it does not look at those
    that are not (`lift-27`, `lift-s`); see the module for what differs elsewhere. Networks of sequences answer for the
    middle of a clip around each frame, as `keep="centre"` has it.

    Args:
        lifter: see :func:`~structloss.harness.predict.load_lifter`; its model is moved to the device.
        layout: of the keypoints, one of :data:`~structloss.data.formats.keypoint_maps.LAYOUTS`; None tells it by their
            number.
        image_size: (width, height) in pixels, of frames that come without.
        fps: frames per second; None is 30 for what depends on it, and times of frames are not looked at then.
        variant: how joints that the detector lacks are made, see :func:`~structloss.harness.predict.predict`.
        flip: average with the mirrored input; None is what the lifter says.
        lag: frames by which the network's answers are late; None is as many as it looks at later frames. With fewer it
            sees the newest frame in place of those that have not come, or answers nearer to its clip's end.
        refiner: see :func:`~structloss.harness.refining.load_refiner`; its own lag is added.
        lengths: bone lengths in metres that poses are given, see :func:`structloss.refine.fit_skeleton`.
        device: where to compute.

    Raises:
        ArgumentError: a rate that is not positive, a lag that the network can't have, a refiner of another skeleton or
            one that must see a clip's end, a layout without a way to the network's joints.
        UnknownNameError: an unknown layout.

    Attributes:
        lag: frames by which answers are late, the refiner's included.
    """

    def __init__(
        self,
        lifter: Lifter,
        *,
        layout: str | None = None,
        image_size: tuple[int, int] | None = None,
        fps: float | None = None,
        variant: str | None = None,
        flip: bool | None = None,
        lag: int | None = None,
        refiner: LoadedRefiner | None = None,
        lengths: np.ndarray | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if layout is not None:
            check_name("layout", layout, LAYOUTS)
        if fps is not None and not 0 < fps < float("inf"):
            raise ArgumentError(f"fps is {fps}, expected a positive number of frames per second.")
        if refiner is not None and refiner.skeleton != lifter.skeleton:
            raise ArgumentError(
                f"{refiner.source} refines poses of skeleton {refiner.skeleton!r}, expected one for "
                f"{lifter.skeleton!r}, in which the network answers."
            )
        self.lifter, self.refiner = lifter, refiner
        self.lengths = lengths
        self.body = skeletons.get(lifter.skeleton)
        self.fps, self.rate = fps, fps or _RATE
        self.device = torch.device(device)
        self._layout, self._size, self.variant = layout, image_size, variant
        self.network_lag, self.flip = lag, lifter.flip if flip is None else flip
        self.call = lifting_call(lifter, self.device)
        if refiner is not None:
            refiner.model.to(self.device)
        self._people: OrderedDict[Hashable, _Person] = OrderedDict()
        self._ways: set[str] = set()  # layouts from which there is one to the network's joints
        self._millimetres: bool | None = None
        if layout is not None:
            self._check_way(layout)
        self.lag = _Person(self).lag
        self._warm_up()

    def push(
        self,
        keypoints: np.ndarray | None,
        *,
        person: Hashable = None,
        frame: int | None = None,
        time: float | None = None,
        image_size: tuple[int, int] | None = None,
        tag: Any = None,
    ) -> list[StreamedPose]:
        """Take the next frame of a person.

        Args:
            keypoints: `[J, 2]` or `[J, 3]`, x and y in pixels and confidence, which is 1 where it is not told; NaN or
                confidence 0 for what was not found. None where nobody was found.
            person: who it is, in any way that tells several people apart.
            frame: its number, which must be greater than the one before; None counts on, by `time` where the rate is
                known.
            time: seconds.
            image_size: (width, height) in pixels.
            tag: handed back with the answer.

        Returns:
            The poses that this frame has made known, in the order of a person's frames; mostly one or, as long as the
            lag is not over, none. A frame in which nothing was found is answered at once, without positions.

        Raises:
            ArgumentError, DataError: anything that can't be; the frame is then as if it had not come.
            CheckpointError: the network answers with NaN or infinite values.
        """
        found = None if keypoints is None else np.asarray(keypoints, np.float64)
        layout = None
        if found is not None:
            if found.ndim != 2 or found.shape[1] not in (2, 3):
                raise ArgumentError(f"keypoints has shape {list(found.shape)}, expected [J, 2] or [J, 3].")
            if found.shape[1] == 2:
                found = np.concatenate([found, np.ones((len(found), 1))], axis=1)
            odd = ~np.isfinite(found).all(1) | ~(found[:, 2] > 0)
            found = np.where(odd[:, None], np.array([np.nan, np.nan, 0.0]), found)
            found[:, 2] = found[:, 2].clip(max=1)
            if len(found):
                layout = known_layout(len(found), self._layout)
            if odd.all():
                found = None
        if found is None or layout is None:
            return self._nobody(person, frame, time, tag)
        self._check_way(layout)
        width, height = self._size_of(image_size)
        _check_places(found, width, height)
        one, left = self._one(person)
        one.seen.check_layout(layout)
        number = one.seen.number(frame, time)
        answers = []
        if one.seen.begins_anew(number):
            answers += one.flush()
            one.seen.forget()
        answers += one.take(one.seen.take(found, number, layout, width, height), number, tag)
        return left + [StreamedPose(person, *answer) for answer in answers]

    def flush(self, *people: Hashable) -> list[StreamedPose]:
        """The poses that are still due: of these people, who have left, or of everybody, as at the end of a video."""
        answers = []
        for person in people or list(self._people):
            if (one := self._people.pop(person, None)) is not None:
                answers += [StreamedPose(person, *answer) for answer in one.flush()]
        return answers

    def _nobody(self, person: Hashable, frame: int | None, time: float | None, tag: Any) -> list[StreamedPose]:
        one, left = self._one(person)
        return [*left, StreamedPose(person, one.seen.number(frame, time), tag, None, 0)]

    def _one(self, person: Hashable) -> tuple[_Person, list[StreamedPose]]:
        """What is kept of a person, and the last answers of whoever leaves for it."""
        left: list[StreamedPose] = []
        if person not in self._people:
            while len(self._people) >= _MOST:
                left += self.flush(next(iter(self._people)))
            self._people[person] = _Person(self)
        self._people.move_to_end(person)
        return self._people[person], left

    def _check_way(self, layout: str) -> None:
        """Raise where there is no way from a layout to the network's joints."""
        if layout in self._ways:
            return
        joints = LAYOUTS[layout].size
        zeros = Keypoints("the stream", np.zeros((1, joints, 2)), np.zeros((1, joints)), skeleton=layout)
        zeros.in_skeleton(self.lifter.skeleton, self.variant)
        self._ways.add(layout)

    def _size_of(self, image_size: tuple[int, int] | None) -> tuple[int, int]:
        size = image_size or self._size
        if size is None:
            raise ArgumentError("the frame doesn't say how large its image is, expected image_size, in pixels.")
        return size

    def _warm_up(self) -> None:
        """Let torch do what it does but once, before somebody waits for it."""
        stream = _Person(self).network
        zeros = torch.zeros(self.body.num_joints, 3, device=self.device)
        for _ in range(stream.lag + 2):
            stream(zeros)

    def metres(self, raw: np.ndarray, logs: deque[float]) -> float:
        """Metres per unit of an answer, of which `logs` are those before."""
        lengths, canonical = limb_lengths(raw[None], self.body)
        if self.lifter.target == "camera":
            if self._millimetres is None:  # some published networks answer in millimetres
                self._millimetres = bool(lengths[0] > 100 * canonical)
            return 1e-3 if self._millimetres else 1.0
        logs.append(float(np.log(canonical / max(lengths[0], 1e-9))))
        return float(np.exp(np.median(logs)))


class _Person:
    """What is kept of somebody: the frames that networks need, and whose answers are due."""

    def __init__(self, owner: KeypointStream) -> None:
        self.owner = owner
        self.seen = PersonSeen(owner.fps)
        lifter, refiner = owner.lifter, owner.refiner
        self.network = BackboneStream(
            lifter.model, lag=owner.network_lag, flip=owner.flip, skeleton=lifter.skeleton, lift=owner.call
        )
        # A refiner that was trained on every n-th frame gets n clips side by side.
        step = 1 if refiner is None else refiner.frame_step(owner.fps)
        self.refiners = [] if refiner is None else [refiner.model.stream() for _ in range(step)]
        self.lag = self.network.lag + (step * self.refiners[0].lag if self.refiners else 0)
        self._begin()

    def _begin(self) -> None:
        self.logs: deque[float] = deque(maxlen=max(1, round(self.owner.rate)))
        self.due: deque[tuple[int, Any]] = deque()  # frames that the network has not answered
        self.due_refined: deque[tuple[int, Any, float]] = deque()  # and those that the refiner has not
        self.turn = 0  # poses that refiners got

    def take(self, frames: Keypoints, number: int, tag: Any) -> list[tuple[int, Any, np.ndarray, int, float]]:
        """Answers (frame, tag, positions, lag, scale) that some frames in a row, the last of this number, make known;
        those before it are made up, and get none."""
        owner = self.owner
        made = frames.in_skeleton(owner.lifter.skeleton, owner.variant)
        assert made.width is not None and made.height is not None  # as `push` gives them
        inputs = network_input(owner.lifter, made.keypoints, made.confidence, made.width, made.height)
        answers = []
        for i, row in enumerate(torch.from_numpy(inputs).float().to(owner.device)):
            last = i == len(inputs) - 1
            self.due.append((number - len(inputs) + 1 + i, (tag,) if last else None))
            with _same_noise(owner):
                pose = self.network(row)
            if pose is not None:
                answers += self._lifted(pose)
        return answers

    def flush(self) -> list[tuple[int, Any, np.ndarray, int, float]]:
        """The answers that are due; then the next frame is the first one."""
        answers = []
        with _same_noise(self.owner):
            poses = self.network.flush()
        for pose in poses:
            answers += self._lifted(pose)
        if self.refiners:
            step, rest = len(self.refiners), []
            for phase, stream in enumerate(self.refiners):
                last = self.turn - 1 - (self.turn - 1 - phase) % step  # the last pose that it got
                rest += [(last - step * back, pose) for back, pose in enumerate(stream.flush().flip(0))]
            for _, pose in sorted(rest, key=lambda one: one[0]):
                answers += self._refined(pose)
        self._begin()
        return answers

    def _lifted(self, pose: torch.Tensor) -> list[tuple[int, Any, np.ndarray, int, float]]:
        """What an answer of the network makes known."""
        owner = self.owner
        number, tag = self.due.popleft()
        raw = pose.cpu().numpy().astype(np.float64)
        if not np.isfinite(raw).all():
            lifter = owner.lifter
            raise CheckpointError(
                f"{lifter.name} with {lifter.source} predicts NaN or infinite values, expected poses."
            )
        raw -= raw[list(owner.body.pelvis)].mean(axis=0)
        scale = owner.metres(raw, self.logs)
        positions = (raw * scale).astype(np.float32)
        self.due_refined.append((number, tag, scale))
        if not self.refiners:
            return self._refined(torch.from_numpy(positions))
        stream = self.refiners[self.turn % len(self.refiners)]
        self.turn += 1
        refined = stream(torch.from_numpy(positions).to(owner.device))
        return [] if refined is None else self._refined(refined)

    def _refined(self, pose: torch.Tensor) -> list[tuple[int, Any, np.ndarray, int, float]]:
        number, tag, scale = self.due_refined.popleft()
        if tag is None:  # made up
            return []
        owner = self.owner
        positions = pose.cpu().numpy()
        if owner.refiner is not None and not np.isfinite(positions).all():
            raise CheckpointError(
                f"{owner.refiner.name} with {owner.refiner.source} gives NaN or infinite values, expected poses."
            )
        if owner.lengths is not None:
            fitted = fit_skeleton(positions[None].astype(np.float64), owner.lengths, owner.lifter.skeleton)
            positions = fitted[0].astype(np.float32)
        return [(number, tag[0], positions, len(self.due) + len(self.due_refined), scale)]


@contextmanager
def _same_noise(owner: KeypointStream) -> Iterator[None]:
    """Diffusion models start from noise: the same frames give the same poses."""
    if not owner.lifter.model.samples:
        yield
        return
    with torch.random.fork_rng(devices=[owner.device] if owner.device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


def _check_places(keypoints: np.ndarray, width: int, height: int) -> None:
    """Raise for keypoints that are no pixels of such an image, as :func:`predict` does of a video."""
    x, y = keypoints[np.isfinite(keypoints).all(1), :2].T
    if max(np.abs(x).max(), np.abs(y).max()) <= 2:
        raise ArgumentError(
            f"keypoints lie within -2 to 2, expected pixels of an image of {width} x {height}; are they normalised "
            "already?"
        )
    if ((x < 0) | (x > width) | (y < 0) | (y > height)).all():
        raise ArgumentError(
            f"all keypoints lie outside of the image of {width} x {height} pixels, x from {x.min():.0f} to "
            f"{x.max():.0f}, y from {y.min():.0f} to {y.max():.0f}, expected the image_size of the video."
        )
