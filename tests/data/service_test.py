"""The tf.data service, its servers as processes of their own."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data import service
from meta_pseudo_labels.data.service import addresses, stream, watch
from meta_pseudo_labels.data.service.__main__ import main
from meta_pseudo_labels.data.service.addresses import free_port
from meta_pseudo_labels.data.service.ordering import in_order

ROOT = pathlib.Path(__file__).resolve().parents[2]
SETTINGS = dict(batch_size=4, unlabeled_ratio=2, magnitude=5, seed=7)


def command(*arguments):
    """A server in a new process, which is not waited for."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "meta_pseudo_labels.data.service",
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


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Two workers at least; they have been made to wait for the dispatcher."""
    with running(state=tmp_path_factory.mktemp("state")) as started:
        started.start_dispatcher()
        started.have_workers(2)
        assert wait_until_up(started.dispatcher) == started.address
        yield started


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", num_labeled=40, label_subset="balanced", seed=0)


@pytest.fixture(scope="module")
def local_batches(digits):
    return take(data.training_dataset(digits, **SETTINGS), 120)


def take(dataset, count):
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def assert_batches_equal(got, want):
    for one, other in zip(got, want, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)


def numbered(order, batch):
    """What arrives from workers that deliver steps in this order."""
    steps = tf.data.Dataset.from_tensor_slices(np.array(order, np.int64))
    return steps.map(lambda step: (step, batch(step)))


def mark(origin):
    """A batch that tells its step, in two types, and where it was made."""
    return lambda step: {
        "step": step,
        "image": tf.fill([2, 3], tf.cast(step, tf.float32)),
        "origin": tf.constant(origin),
    }


@pytest.mark.parametrize(
    "order, start, window, want",
    [
        # (step, whether it was made here)
        ([0, 1, 2], 0, 1, "0 1 2"),
        ([3, 0, 2, 1, 4], 0, 4, "0 1 2 3 4"),
        ([7, 5, 6], 5, 4, "5 6 7"),
        # 1 is lost, and would have been waited for in a longer window.
        ([0, 2, 3, 4, 5], 0, 4, "0 1* 2 3 4 5"),
        ([0, 2, 3, 4, 5], 0, 5, "0"),
        # It comes after all, and twice.
        ([0, 2, 3, 4, 5, 1, 1, 6], 0, 4, "0 1* 2 3 4 5 6"),
        ([0, 1, 1, 0, 2], 0, 4, "0 1 2"),
        # Far ahead: all that the window cannot hold is made here.
        ([0, 9, 7, 8], 0, 3, "0 1* 2* 3* 4* 5* 6* 7 8 9"),
    ],
)
def test_steps_come_in_order(order, start, window, want):
    arrivals = numbered(order, mark("service"))
    batches = take(
        in_order(arrivals, mark("here"), start_step=start, window=window), 20
    )
    origins = {b"service": "", b"here": "*"}
    got = [f"{x['step']}{origins[x['origin']]}" for x in batches]
    assert " ".join(got) == want
    for batch in batches:
        np.testing.assert_array_equal(batch["image"], [[batch["step"]] * 3] * 2)


@pytest.mark.parametrize("seed", range(5))
def test_no_order_of_arrival_changes_the_stream(seed):
    """Shuffled, with losses and repetitions."""
    random = np.random.default_rng(seed)
    order = np.arange(200) + random.integers(0, 12, 200)
    order = np.argsort(order, kind="stable")
    order = np.concatenate([order[random.random(200) > 0.1], np.arange(200)])
    got = take(
        in_order(
            numbered(order, mark("service")),
            mark("here"),
            start_step=0,
            window=8,
        ),
        180,
    )
    assert [x["step"] for x in got] == list(range(180))
    origins = [x["origin"] for x in got]
    assert 0 < origins.count(b"here") < 90


def test_stream_is_the_local_one_though_workers_are_killed(
    servers, digits, local_batches
):
    first, _ = servers.have_workers(2)
    settings = SETTINGS | dict(service=servers.address)
    batches = data.training_dataset(digits, **settings).as_numpy_iterator()
    got = list(itertools.islice(batches, 40))
    first.kill()
    got += itertools.islice(batches, 80)
    assert_batches_equal(got, local_batches)
    # A stream from later on is the tail, with the worker that is left.
    tail = data.training_dataset(digits, **settings, start_step=100)
    assert_batches_equal(take(tail, 20), local_batches[100:])


def mini_imagenet(data_dir):
    return data.load(
        "imagenet2012_subset",
        num_labeled=None,
        seed=0,
        data_dir=str(data_dir / "imagenet_mini"),
        label_subset="first",
        image_size=32,
    )


def test_stream_of_files_is_the_local_one(servers, data_dir):
    servers.have_workers(1)
    images = mini_imagenet(data_dir)
    local = data.training_dataset(images, **SETTINGS, start_step=5)
    remote = data.training_dataset(
        images, **SETTINGS, start_step=5, service=servers.address
    )
    assert remote.element_spec == local.element_spec
    assert_batches_equal(take(remote, 6), take(local, 6))


def read_by(records):
    """Records whose labels are the process that reads them."""

    def parse(record):
        status = tf.io.read_file("/proc/self/stat")
        process = tf.strings.split(status)[0]
        label = tf.strings.to_number(process, tf.int32)
        return records.parse(record) | {"label": label}

    return dataclasses.replace(records, parse=parse)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who works")
def test_files_are_read_where_the_workers_are(servers, data_dir):
    workers = servers.have_workers(1)
    images = mini_imagenet(data_dir)
    images = dataclasses.replace(
        images,
        spec=dataclasses.replace(images.spec, num_classes=2**31 - 1),
        labeled_images=read_by(images.labeled_images),
    )
    batches = take(
        data.training_dataset(images, **SETTINGS, service=servers.address), 20
    )
    readers = {int(label) for batch in batches for label in batch["labels"]}
    readers.discard(os.getpid())  # It makes what comes late.
    assert readers and readers <= {worker.pid for worker in workers}


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who works")
def test_steps_go_to_all_workers(servers):
    workers = servers.have_workers(2)

    def slow(step):
        status = tf.io.read_file("/proc/self/stat")
        work = tf.reduce_sum(tf.linalg.matmul(*[tf.ones([600, 600])] * 2))
        return step, tf.strings.split(status)[0], work

    got = take(service.through_service(slow, servers.address), 60)
    assert [step for step, *_ in got] == list(range(60))
    makers = {int(process) for _, process, _ in got} - {os.getpid()}
    assert makers == {worker.pid for worker in workers}


def test_hanging_worker_does_not_stop_the_stream(servers):
    """Its steps are made here, and dropped when they come after all."""
    first, _ = servers.have_workers(2)
    batches = iter(service.through_service(lambda step: step, servers.address))
    got = [int(next(batches)) for _ in range(20)]
    first.send_signal(signal.SIGSTOP)
    try:
        got += [int(next(batches)) for _ in range(500)]
    finally:
        first.send_signal(signal.SIGCONT)
    got += [int(next(batches)) for _ in range(500)]
    assert got == list(range(1020))


def test_dispatcher_with_a_work_dir_can_be_started_again(servers):
    servers.have_workers(1)
    batches = iter(service.through_service(lambda step: step, servers.address))
    got = [int(next(batches)) for _ in range(20)]
    servers.dispatcher.kill()
    servers.dispatcher.wait()
    servers.start_dispatcher()
    got += [int(next(batches)) for _ in range(300)]
    assert got == list(range(320))
    assert wait_until_up(servers.dispatcher) == servers.address


def test_a_worker_is_no_dispatcher(servers):
    (worker, *_) = servers.have_workers(1)
    with pytest.raises(ValueError, match="is not a tf.data dispatcher"):
        service.through_service(lambda step: step, worker.address)


def test_a_service_that_falls_silent_is_told_of(monkeypatch):
    """Once, and once more when it answers again."""
    troubles = iter([None, "Start it.", "Start it.", None, None, "Too late."])
    asked, said = [], []

    def trouble(*arguments):
        asked.append(arguments)
        if len(asked) == 6:
            del kept[:]  # The last of the data set, while it is asked.
        return next(troubles)

    monkeypatch.setattr(watch, "_trouble", trouble)
    monkeypatch.setattr(
        watch.logging, "warning", lambda text, *rest: said.append(text % rest)
    )
    kept = [tf.data.Dataset.range(3)]
    before = set(threading.enumerate())
    watch.watch(kept[0], "grpc://h:1", pause_seconds=0.01)
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert len(asked) == 6
    assert said == [
        "Training waits for its input. Start it.",
        "grpc://h:1 answers again.",
    ]


def test_servers_end_when_they_are_told_to():
    """A dispatcher without a worker, too."""
    with running() as servers:
        servers.start_dispatcher()
        wait_until_up(servers.dispatcher)
        with pytest.raises(ValueError, match="No worker of") as caught:
            service.through_service(
                lambda step: step, servers.address, timeout_seconds=0.5
            )
        assert f"worker --dispatcher={servers.address}`" in str(caught.value)
        (worker,) = servers.have_workers(1)
        batches = iter(
            service.through_service(lambda step: step, servers.address)
        )
        next(batches)  # In the middle of a job.
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=20) == 0
        # The dispatcher still knows it.
        with pytest.raises(ValueError, match="answers within 0.5 s"):
            service.through_service(
                lambda step: step, servers.address, timeout_seconds=0.5
            )
        servers.dispatcher.send_signal(signal.SIGINT)
        assert servers.dispatcher.wait(timeout=20) == 0
        for server in (worker, servers.dispatcher):
            assert "Traceback" not in server.stderr.read()


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost:5050",
        "localhost:5050",
        "grpc://localhost",
        "grpc://:5050",
        "grpc://localhost:0",
        "grpc://localhost:65536",
        "grpc://localhost:port",
        "grpc://localhost:5050/path",
        "grpc://me@localhost:5050",
        "",
    ],
)
def test_addresses_of_another_form_are_refused(address):
    with pytest.raises(ValueError, match="form grpc://host:port") as caught:
        service.through_service(lambda step: step, address)
    assert repr(address) in str(caught.value)


def test_addresses_are_split():
    assert service.parse_address("grpc://h:50") == ("h:50", 50)
    assert service.parse_address("grpc://[::1]:50") == ("[::1]:50", 50)


def test_long_addresses_of_workers_are_read():
    long = b"w" * 300 + b":50"
    inner = b"\n\xaf\x02" + long
    message = b"\n\xb2\x02" + inner + b"\n\x06\n\x04h:51"
    assert list(addresses._workers(message)) == [long.decode(), "h:51"]


def test_nobody_at_the_address():
    port = free_port(0)
    start = time.monotonic()
    with pytest.raises(ValueError, match=f"localhost:{port} within 1 s") as e:
        service.through_service(
            lambda step: step, f"grpc://localhost:{port}", timeout_seconds=1
        )
    assert time.monotonic() - start < 5
    assert f"service dispatcher --port={port}" in str(e.value)


def test_servers_that_cannot_start(capsys):
    def refusal(*arguments):
        assert main(list(arguments)) == 1
        out, errors = capsys.readouterr()
        assert out == ""
        return errors.splitlines()[-1]

    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        message = refusal("dispatcher", f"--port={port}")
    assert message.startswith(f"Error: Port {port} cannot be used (Addr")
    message = refusal(
        "worker",
        f"--dispatcher=grpc://localhost:{free_port(0)}",
        "--timeout_seconds=0.5",
    )
    assert "within 0.5 s; start one with" in message
    message = refusal("worker", "--dispatcher=localhost")
    assert message.startswith("Error: The address 'localhost' is not of")


def test_a_port_is_not_shared_with_another_server(servers, capsys):
    """As gRPC would without a word."""
    port = servers.address.rpartition(":")[2]
    assert main(["dispatcher", f"--port={port}"]) == 1
    assert f"Port {port} cannot be used" in capsys.readouterr().err


def test_too_much_to_send_is_refused(monkeypatch):
    monkeypatch.setattr(stream, "wait_for_dispatcher", lambda *_, **__: None)
    monkeypatch.setattr(stream, "MAX_HELD_BYTES", 3000)
    held = tf.zeros([1000, 3], tf.uint8), tf.zeros([1], tf.uint8)
    with pytest.raises(ValueError, match="can be sent 0.00 GB at most"):
        service.through_service(
            lambda step: [tensor[step] for tensor in held], "grpc://host:1"
        )


@pytest.mark.long
def test_as_much_as_cifar10_is_sent(servers):
    """About 150 MB of pixels, far more than gRPC's usual 4 MB."""
    servers.have_workers(2)
    pixels = np.random.default_rng(0).integers(0, 256, [50_000, 32, 32, 3])
    images = tf.convert_to_tensor(pixels.astype(np.uint8))
    got = take(
        service.through_service(
            lambda step: tf.gather(images, step * 97 % 50_000), servers.address
        ),
        200,
    )
    for step, image in enumerate(got):
        np.testing.assert_array_equal(image, pixels[step * 97 % 50_000])
