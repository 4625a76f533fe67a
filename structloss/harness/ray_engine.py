"""Pieces of work as tasks on a Ray cluster: one that runs already, or one of this machine that ends with the work.

What Ray does: it finds a node with the CPUs and GPUs of a piece, does the piece once more elsewhere when a worker or a
node is lost, and carries results back. What we add: a folder that pieces go on from (`ray_keeper`), a bound for
everything that would grow, and sentences for what goes wrong.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from .. import __version__
from ..errors import ArgumentError, BackendError, DataError, StructlossError, needs_extra
from ..files import scratch_folder
from ..text import visible
from .engines import Piece, told_as, with_paths
from .ray_keeper import Keeper, Mirror, forget, forget_unused, local_copies, scratch

__all__ = ["RayCluster"]

_STORE = 256 << 20  # bytes of shared memory for objects of a cluster of our own; results and parts of files are small
_STARTS = 2  # attempts; a machine that is busy may need longer than Ray waits
_ANSWER_SECONDS = 10.0
_POLL_SECONDS = 0.5
_NEWS_SECONDS = 2.0
_OLD_SECONDS = 7 * 86400.0
#: read before Ray is imported: it tells nobody that it is used, and a cluster of one machine hears that machine alone
_SILENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_task_oom_retries": "3",  # Ray's own number is without end
}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # its name tells where it is the default


class RayCluster:
    """An engine, open within a `with` block.

    Args:
        address: "HOST:PORT" of a cluster that this machine is a node of, or "auto" for the one that was started on this
            machine; None starts one here that takes no calls from elsewhere and ends with the block.
        cpus: of a piece; as many threads compute it.
        gpus: of a piece, also a share of one; None is 1 where the cluster has any.
        jobs: pieces at a time; None is as many as there is room for.
        retries: how often a piece is done once more whose worker or node was lost.
        say: is given a sentence when that happens.

    Raises:
        ArgumentError: numbers out of range; resources that no node has; an address where no cluster is.
        BackendError: none could be started here, or this process uses one already.
        MissingDependencyError: Ray is not installed.
    """

    spreads = True

    def __init__(
        self,
        address: str | None = None,
        *,
        cpus: int = 1,
        gpus: float | None = None,
        jobs: int | None = None,
        retries: int = 3,
        say: Callable[[str], object] | None = None,
    ) -> None:
        for name, value in (("cpus", cpus), ("jobs", 1 if jobs is None else jobs)):
            if value < 1:
                raise ArgumentError(f"{name} is {value}, expected at least 1.")
        if gpus is not None and not (0 <= gpus < math.inf and (gpus < 1 or gpus == int(gpus))):
            raise ArgumentError(f"gpus is {gpus:g}, expected a share of one below 1, or a whole number.")
        self.address, self.cpus, self.gpus, self.jobs, self.retries = address, cpus, gpus, jobs, retries
        self._say = say or (lambda text: None)
        self._open = contextlib.ExitStack()
        self._session = f"structloss-{os.getpid()}-{secrets.token_hex(4)}"
        self._base: Path | None = None  # of the scratch folders, where the cluster is ours

    def __enter__(self) -> RayCluster:
        own = self.address is None
        for name, value in (_SILENT | (_LOOPBACK if own else {})).items():
            os.environ.setdefault(name, value)
        with needs_extra("cluster"):
            import ray
        if ray.is_initialized():
            raise BackendError("this process uses Ray already, expected one engine at a time.")
        try:
            if self.address is None:
                self._start(ray)
            else:
                self._connect(ray, self.address)
            self._check_room(ray)
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    # ---- a cluster -------------------------------------------------------------------------------------------------

    def _start(self, ray: Any) -> None:
        # Sockets have short names: a long TMPDIR leaves no room for Ray's own folders.
        place = Path(tempfile.gettempdir())
        place = place if len(str(place)) <= 10 or not Path("/tmp").is_dir() else Path("/tmp")
        folder = self._open.enter_context(scratch_folder(place / "slray"))
        self._base = folder / "work"
        for attempt in range(1, _STARTS + 1):
            try:
                with _quiet():
                    ray.init(
                        address="local", include_dashboard=False, object_store_memory=_STORE, log_to_driver=False,
                        logging_level=logging.CRITICAL, _temp_dir=str(folder), configure_logging=True,
                    )  # fmt: skip
                break
            except Exception as error:
                with _quiet():
                    ray.shutdown()
                if attempt == _STARTS:
                    raise BackendError(f"Ray can't start on this machine: {_first_line(error)}") from error
        self._open.callback(_shut_down, ray)

    def _connect(self, ray: Any, address: str) -> None:
        if "://" in address:
            raise ArgumentError(
                f"address is {address!r}, expected HOST:PORT or auto: this machine must be a node of the cluster, as "
                "after ray start --address=HOST:PORT."
            )
        self._say(f"connecting to {address}")
        if address != "auto":
            _check_answers(address)
        try:
            with _quiet():
                ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:
            with _quiet():
                ray.shutdown()
            raise ArgumentError(_no_cluster(address, error)) from error
        self._open.callback(_shut_down, ray)
        self._open.callback(self._tidy, ray)

    def _tidy(self, ray: Any) -> None:
        """Remove what this work left on the nodes that are still there."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        with contextlib.suppress(Exception):
            nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
            tidy = ray.remote(_forget)
            left = [
                tidy.options(num_cpus=0, max_retries=0, scheduling_strategy=On(node, soft=False)).remote(self._session)
                for node in nodes
            ]
            ray.wait(left, num_returns=len(left), timeout=_ANSWER_SECONDS)

    def _check_room(self, ray: Any) -> None:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in ("CPU", "GPU")}
        if self.gpus is None:
            self.gpus = 1.0 if most["GPU"] >= 1 else 0.0
        for name, kind, asked in (("cpus", "CPU", self.cpus), ("gpus", "GPU", self.gpus)):
            if asked > most[kind]:
                raise ArgumentError(
                    f"{name} is {asked:g}, and no node of the cluster has more than {most[kind]:g}, expected at most "
                    "that."
                )
        if not any(node.get("CPU", 0) >= self.cpus and node.get("GPU", 0) >= self.gpus for node in nodes):
            raise ArgumentError(f"cpus is {self.cpus} with {self.gpus:g} GPUs, expected what one node has together.")

    def describe(self) -> str:
        """The nodes, in a few words."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
        of = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
        return f"{of}, {cpus:g} CPUs" + (f", {gpus:g} GPUs" if gpus else "")

    # ---- work ------------------------------------------------------------------------------------------------------

    def run(
        self, pieces: Sequence[Piece], folder: Path, lost: Callable[[int, BackendError], None] | None = None
    ) -> Iterator[tuple[int, Any]]:
        """See :class:`~structloss.harness.engines.Engine`."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        if not pieces:
            return
        folder.mkdir(parents=True, exist_ok=True)
        here = On(ray.get_runtime_context().get_node_id(), soft=False)
        absolute = {path: os.path.abspath(path) for piece in pieces for path in piece.reads}
        keeper: Any = (
            ray.remote(Keeper)
            .options(num_cpus=0, scheduling_strategy=here)
            .remote(str(folder.absolute()), sorted({*absolute.values()}))
        )
        task: Any = ray.remote(_work).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries, retry_exceptions=False,
            num_returns="streaming", scheduling_strategy="SPREAD",
        )  # fmt: skip
        base = None if self._base is None else str(self._base)
        versions = (__version__, torch.__version__)
        under_way: dict[Any, int] = {}
        left = iter(enumerate(pieces))
        asked = time.monotonic()
        try:
            while True:
                while len(under_way) < self._most(ray) and (following := next(left, None)) is not None:
                    number, piece = following
                    paths = {path: absolute[path] for path in piece.reads}
                    places, most = (base, self._session), 2 * self.retries + 1
                    told = (number, piece, paths, keeper, places, versions, self.cpus, most)
                    under_way[task.remote(*told)] = number
                if not under_way:
                    self._tell(ray, keeper, pieces)
                    return
                ready: list[Any]
                ready, _ = ray.wait([*under_way], num_returns=1, timeout=_POLL_SECONDS, fetch_local=False)
                for stream in ready:
                    number = under_way[stream]
                    try:
                        value = ray.get(next(stream))
                    except StopIteration:
                        del under_way[stream]
                        continue
                    except Exception as error:
                        del under_way[stream]
                        found = _sentence(error, pieces[number], ray)
                        if isinstance(found, BackendError) and lost is not None and found is not error:
                            lost(number, found)
                            continue
                        raise found from error
                    yield number, value
                if time.monotonic() - asked > _NEWS_SECONDS:
                    asked = time.monotonic()
                    self._tell(ray, keeper, pieces)
        finally:
            if ray.is_initialized():  # these would start another cluster
                for stream in under_way:
                    with contextlib.suppress(Exception):
                        ray.cancel(stream, force=True)
                with contextlib.suppress(Exception):
                    ray.kill(keeper)

    def _most(self, ray: Any) -> int:
        """Pieces to hand out at a time: so many as there is room for, and one that waits for each."""
        if self.jobs is not None:
            return self.jobs
        there = ray.cluster_resources()
        rooms = [there.get("CPU", 0) / self.cpus] + ([there.get("GPU", 0) / self.gpus] if self.gpus else [])
        return max(2, 2 * int(min(rooms)))

    def _tell(self, ray: Any, keeper: Any, pieces: Sequence[Piece]) -> None:
        try:
            news = ray.get(keeper.news.remote(), timeout=_ANSWER_SECONDS)
        except Exception:  # it has more to do; the next time
            return
        for number, where, kept in news:
            how = "goes on from what it kept" if kept else "begins anew"
            self._say(f"{pieces[number].name}: its worker was lost, it {how} on {where}")


def _work(
    number: int, piece: Piece, paths: dict[str, str], keeper: Any, places: tuple[str | None, str],
    versions: tuple[str, str], cpus: int, most: int,
) -> Iterator[Any]:  # fmt: skip
    """A piece, in a worker, which is begun `most` times at the most, whatever its workers were lost for."""
    import ray

    node = ray.util.get_node_ip_address()
    if (ours := (__version__, torch.__version__)) != versions:
        raise DataError(
            f"node {node} has structloss {ours[0]} with torch {ours[1]}, expected {versions[0]} with {versions[1]}, as "
            "the machine that asks has."
        )

    def call(method: str, *arguments: Any) -> Any:
        return ray.get(getattr(keeper, method).remote(*arguments))

    torch.set_num_threads(cpus)
    kept = call("begins", number, f"node {node}", list(piece.resumes), most)
    session = _session(*places)
    with scratch(session) as folder:
        if places[0] is None:
            forget_unused(session.parent, _OLD_SECONDS)
        found = local_copies(call, [*paths.values()], session / "files")
        moved = {told: found[path] for told, path in paths.items() if found[path] != path or told != path}
        mirror = Mirror(call, secrets.token_hex(8), kept, folder)
        with mirror.following(), told_as({place: told for told, place in moved.items()}):
            for value in piece.work(*with_paths(piece.arguments, moved), folder):
                mirror.send()
                yield value
            mirror.send()


def _session(base: str | None, name: str) -> Path:
    """The folder of a driver's session on this node."""
    return (Path(tempfile.gettempdir()) / f"structloss-ray-{os.getuid()}" if base is None else Path(base)) / name


def _forget(name: str) -> None:
    forget(_session(None, name))


# ---- sentences -----------------------------------------------------------------------------------------------------


def _check_answers(address: str) -> None:
    """Raise where nobody listens at an address, which Ray would take a minute to find."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ArgumentError(f"address is {address!r}, expected HOST:PORT or auto.")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        told = error.strerror or str(error) or "no answer"
        raise ArgumentError(
            f"address is {address!r}, where no cluster answers ({told.lower()}), expected that of ray start --head."
        ) from error


def _no_cluster(address: str, error: Exception) -> str:
    text = _first_line(error)
    if address == "auto":
        return "address is 'auto', and no Ray cluster runs on this machine, expected one that ray start has begun here."
    return f"address is {address!r}, which can't be used: {text}"


def _sentence(error: Exception, piece: Piece, ray: Any) -> BaseException:
    """What a task that is given up means. Faults of ours keep their traceback."""
    errors = ray.exceptions
    if isinstance(error, errors.RayTaskError):
        cause = error.cause if isinstance(error.cause, BaseException) else None
        if isinstance(cause, (errors.RayError, ConnectionError)):
            return _sentence(cause, piece, ray) if isinstance(cause, errors.RayError) else cause
        if isinstance(cause, (StructlossError, MemoryError, OSError)):
            return cause
        return error.as_instanceof_cause()
    if isinstance(error, errors.OutOfMemoryError):
        return BackendError(
            f"{piece.name} ran out of memory on its node again and again, expected a node with more, or fewer pieces "
            "on each: more cpus for each piece, or smaller batches."
        )
    if isinstance(error, (errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError)):
        return BackendError(
            f"{piece.name} lost its worker again and again: the node went away, or the process was killed, perhaps for "
            "want of memory."
        )
    if isinstance(error, errors.RayError):
        return BackendError(f"{piece.name} was given up by Ray: {_first_line(error)}")
    return error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = visible(lines[0] if lines else type(error).__name__)[:240]
    return text if text.endswith(".") else f"{text}."


def _shut_down(ray: Any) -> None:
    with _quiet():
        ray.shutdown()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's own lines out of a command's output."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
