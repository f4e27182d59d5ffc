"""Servers of the tf.data service, as processes of their own."""

import contextlib
import os
import pathlib
import subprocess
import sys

from meta_pseudo_labels.data.streams.service.addresses import free_port

ROOT = pathlib.Path(__file__).resolve().parents[1]


def command(*arguments):
    """A server in a new process, which is not waited for."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "meta_pseudo_labels.data.streams.service",
            *map(str, arguments),
        ],
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_up(server):
    """The server's address, once it says that it is up."""
    line = server.stdout.readline()
    assert " is up: grpc://" in line, server.stderr.read()
    return line.split()[3].rstrip(".,")


class Servers:
    """A dispatcher and workers, to be killed in the end."""

    def __init__(self, state=None):
        self.processes, self.workers = [], []
        port = free_port(0)
        self.address = f"grpc://localhost:{port}"
        self._dispatcher = ["dispatcher", f"--port={port}"]
        if state:
            self._dispatcher.append(f"--work_dir={state}")

    def start(self, *arguments):
        self.processes.append(command(*arguments))
        return self.processes[-1]

    def start_dispatcher(self):
        self.dispatcher = self.start(*self._dispatcher)

    def have_workers(self, count):
        """Starts as many as are missing, and returns them all."""
        self.workers = [x for x in self.workers if x.poll() is None]
        new = [
            self.start("worker", f"--dispatcher={self.address}")
            for _ in range(count - len(self.workers))
        ]
        for worker in new:
            worker.address = wait_until_up(worker)
        self.workers += new
        return self.workers

    def kill(self):
        for process in self.processes:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def running(**settings):
    servers = Servers(**settings)
    try:
        yield servers
    finally:
        servers.kill()
