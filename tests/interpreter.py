"""Tests in Triton's interpreter: they run in a process of their own, and are reported as tests like any other.

TRITON_INTERPRET=1 has to be set before the kernels are imported, and changes what `structloss.backends()` says. A test
marked `interpreted` is therefore collected here and run by a child, one for each file, which is asked for one test
after the other and answers with pytest's reports. With TRITON_INTERPRET=1 in the environment such tests run as usual.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol


class Interpreter:
    """The plugin of the process that collects: sends marked tests to the child of their file."""

    def __init__(self) -> None:
        self.children: dict[Path, subprocess.Popen[str]] = {}
        self.output = tempfile.TemporaryFile("w+")  # noqa: SIM115  (what pytest says in the children)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        if "interpreted" not in item.keywords:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        # What the test before this one left standing, and the one after it does not need.
        item.session._setupstate.teardown_exact(nextitem)
        return True

    def _reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        child = self._child(item.path, item.config.rootpath)
        try:
            child.stdin.write(item.nodeid + "\n")
            child.stdin.flush()
            answer = child.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            from_data = item.config.hook.pytest_report_from_serializable
            return [from_data(config=item.config, data=data) for data in json.loads(answer)]
        del self.children[item.path]  # the next test gets a new one
        self.output.seek(0)
        message = f"the interpreter's process ended with {child.wait()}: {self.output.read()[-4000:]}"
        call = pytest.CallInfo.from_call(lambda: pytest.fail(message, pytrace=False), "call")
        return [item.ihook.pytest_runtest_makereport(item=item, call=call)]

    def _child(self, file: Path, root: Path) -> subprocess.Popen[str]:
        if file not in self.children:
            environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
            for name in ("STRUCTLOSS_BACKEND", "PYTEST_ADDOPTS"):
                environment.pop(name, None)
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.output}
            command = [sys.executable, __file__, str(file)]
            self.children[file] = subprocess.Popen(command, **pipes, text=True, cwd=root, env=environment)
        return self.children[file]

    def pytest_unconfigure(self) -> None:
        for child in self.children.values():
            child.stdin.close()
            child.wait()


class Child:
    """The plugin of the child: runs what is asked for on its standard input, instead of everything."""

    def __init__(self) -> None:
        # Before pytest captures both.
        self.requests, self.answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        for line in self.requests:
            reports = runtestprotocol(items[line.strip()], log=False, nextitem=None)
            to_data = session.config.hook.pytest_report_to_serializable
            print(json.dumps([to_data(config=session.config, report=report) for report in reports]), file=self.answers)
            self.answers.flush()
        return True


if __name__ == "__main__":
    child = Child()
    os.dup2(2, 1)  # pytest's own words
    sys.exit(pytest.main(["--tb=short", sys.argv[1]], plugins=[child]))
