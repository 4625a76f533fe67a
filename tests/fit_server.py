"""Runs `structloss fit` many times: imports once, then forks a child for every line of arguments on standard input.

A line is JSON: {"cwd": ..., "arguments": [...], "log": ..., "file_limit": bytes or null}. The child's process number is
written back at once, and its exit status when it ends.
"""

import json
import os
import resource
import signal
import sys

from structloss import cli
from structloss.harness import commands  # noqa: F401  imported here, so that no child has to


def child(request: dict) -> None:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(request["cwd"])
    if request["file_limit"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing beyond the limit then fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"],) * 2)
    code = 1
    try:
        code = cli.main(request["arguments"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


for line in sys.stdin:
    number = os.fork()
    if number == 0:
        child(json.loads(line))
    print(number, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), flush=True)
