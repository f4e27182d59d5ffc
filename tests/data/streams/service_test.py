"""The tf.data service, its servers as processes of their own."""

import dataclasses
import itertools
import os
import signal
import sys

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data.streams import service
from meta_pseudo_labels.data.streams.service.__main__ import main
from tests.batch_parts import assert_equal, take
from tests.service_processes import running, wait_until_up

SETTINGS = dict(batch_size=4, unlabeled_ratio=2, magnitude=5, seed=7)


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


@pytest.mark.long
def test_stream_is_the_local_one_though_workers_are_killed(
    servers, digits, local_batches
):
    first, _ = servers.have_workers(2)
    settings = SETTINGS | dict(service=servers.address)
    batches = data.training_dataset(digits, **settings).as_numpy_iterator()
    got = list(itertools.islice(batches, 40))
    first.kill()
    got += itertools.islice(batches, 80)
    assert_equal(got, local_batches)
    # A stream from later on is the tail, with the worker that is left.
    tail = data.training_dataset(digits, **settings, start_step=100)
    assert_equal(take(tail, 20), local_batches[100:])


def mini_imagenet(data_dir):
    return data.load(
        "imagenet2012_subset",
        num_labeled=None,
        seed=0,
        data_dir=str(data_dir / "imagenet_mini"),
        label_subset="first",
        image_size=32,
    )


@pytest.mark.long
def test_stream_of_files_is_the_local_one(servers, data_dir):
    servers.have_workers(1)
    images = mini_imagenet(data_dir)
    local = data.training_dataset(images, **SETTINGS, start_step=5)
    remote = data.training_dataset(
        images, **SETTINGS, start_step=5, service=servers.address
    )
    assert remote.element_spec == local.element_spec
    assert_equal(take(remote, 6), take(local, 6))


def read_by(records):
    """Records whose labels are the process that reads them."""

    def parse(record):
        status = tf.io.read_file("/proc/self/stat")
        process = tf.strings.split(status)[0]
        label = tf.strings.to_number(process, tf.int32)
        return records.parse(record) | {"label": label}

    return dataclasses.replace(records, parse=parse)


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
def test_a_worker_is_no_dispatcher(servers):
    (worker, *_) = servers.have_workers(1)
    with pytest.raises(ValueError, match="is not a tf.data dispatcher"):
        service.through_service(lambda step: step, worker.address)


@pytest.mark.long
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


@pytest.mark.long
def test_a_port_is_not_shared_with_another_server(servers, capsys):
    """As gRPC would without a word."""
    port = servers.address.rpartition(":")[2]
    assert main(["dispatcher", f"--port={port}"]) == 1
    assert f"Port {port} cannot be used" in capsys.readouterr().err


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
