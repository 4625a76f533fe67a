"""Runs of the `structloss` command in processes of their own, but without the seconds that its imports take.

Run as a program it imports them once, then does what lines of JSON on standard input ask for. {"cwd": ..., "arguments":
[...], "out": ..., "err": ..., "file_limit": bytes or 0, "environment": {...}} forks a child, whose process number is
written back; "out" and "err" are files that are appended to. {"wait": number} writes the child's exit status back when
it has ended.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path


class Commands:
    """The server, and what one asks of it."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._scratch = tempfile.TemporaryDirectory()
        self._server = subprocess.Popen([sys.executable, __file__], **pipes, text=True, env=environment)

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait()
        self._scratch.cleanup()

    def start(
        self,
        folder: Path,
        *arguments: object,
        out: Path,
        err: Path,
        file_limit: int = 0,
        environment: dict[str, str] | None = None,
    ) -> int:
        """Begin a run in a folder; its process number."""
        request = {"cwd": str(folder), "arguments": [*map(str, arguments)], "out": str(out), "err": str(err)}
        return self._ask(request | {"file_limit": file_limit, "environment": environment or {}})

    def wait(self, process: int) -> int:
        """The exit code of a run; negative for a signal."""
        return self._ask({"wait": process})

    def _ask(self, request: dict) -> int:
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def run(self, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        """A whole run."""
        files = [Path(self._scratch.name) / name for name in ("out", "err")]
        for file in files:
            file.unlink(missing_ok=True)
        process = self.start(folder, *arguments, out=files[0], err=files[1])
        return subprocess.CompletedProcess(arguments, self.wait(process), *(file.read_text() for file in files))


def _child(request: dict) -> None:
    for descriptor, key in ((1, "out"), (2, "err")):
        os.dup2(os.open(request[key], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
    os.chdir(request["cwd"])
    os.environ.update(request["environment"])
    if request["file_limit"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing beyond the limit then fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"],) * 2)
    code = 1
    try:
        code = cli.main(request["arguments"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    from structloss import cli
    from structloss.commands import _lightning  # noqa: F401
    from structloss.harness import shown_clips  # noqa: F401
    from structloss.reports import curves, page, poses, report, tables  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
            continue
        number = os.fork()
        if number == 0:
            _child(asked)
        print(number, flush=True)
