"""Times serve.py: requests of one image, from several clients at once.

    python -m benchmarks.serving.run --json benchmarks/results/serving.json

A network with fresh weights is exported and served by a process of its own on
this machine, which shares the cores with the clients. Each client sends its
next request as soon as it has its answer. For every number of clients, and for
decoded images (lists of numbers in JSON) and JPEG files (base64):

    p50, p99    milliseconds from a request to its answer
    images/s    answers per second in total

Answers other than 200 are counted separately and enter no time.
"""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import aiohttp
import keras
import numpy as np
import tensorflow as tf

from benchmarks.common.arguments import (
    benchmark_parser,
    parsed,
    recorded,
    write_report,
)
from benchmarks.common.machine import ROOT, headline, machine_facts, revision
from meta_pseudo_labels import data, models
from meta_pseudo_labels.export.saved_model import export_saved_model

CLIENTS = (1, 8, 64)


def main():
    settings = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        export(settings, folder)
        process, address = start(settings, folder)
        try:
            rows = measure(settings, address)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    report = {
        "settings": recorded(settings),
        "rows": rows,
        "code": revision(),
        "machine": machine_facts(),
    }
    print_table(report)
    write_report(report, settings.json)


def parse_arguments():
    parser = benchmark_parser(
        __doc__,
        (
            ("image_size", 32, "height and width in pixels"),
            ("seconds", 10, "per measurement"),
            ("workers", 2, "requests that the server handles at a time"),
        ),
    )
    parser.add_argument("--model", default="wrn-28-2", help="the network")
    return parsed(parser)


def export(settings, folder):
    keras.utils.set_random_seed(0)
    size = settings.image_size
    spec = data.DatasetSpec(
        name="benchmark",
        num_classes=10,
        image_size=size,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        flip=True,
    )
    network = models.build(
        settings.model,
        input_shape=(size, size, 3),
        num_classes=10,
        small_images=spec.small_images,
    )
    export_saved_model(network, folder, spec=spec)


def start(settings, folder):
    """The server's process, and the address for predictions."""
    process = subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "serve.py"),
            f"--saved_model={folder}",
            "--port=0",
            f"--workers={settings.workers}",
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    line = process.stdout.readline()
    if not line:
        sys.exit("Error: the server did not start.")
    return process, f"{line.split()[-1]}:predict"


def measure(settings, address):
    """A row for each kind of request and number of clients."""
    rows = []
    for kind, body in bodies(settings.image_size).items():
        asyncio.run(ask(address, body, clients=2, seconds=1))  # Warm-up.
        for clients in CLIENTS:
            rows.append(
                {"request": kind, "clients": clients, "bytes": len(body)}
                | asyncio.run(
                    ask(
                        address, body, clients=clients, seconds=settings.seconds
                    )
                )
            )
    return rows


def bodies(size):
    """The bytes of a request of each kind."""
    noise = tf.random.stateless_uniform([1, 8, 8, 3], [0, 0], 0, 256)
    image = tf.image.resize(noise, [size, size], "bicubic")[0]
    image = tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8)
    encoded = base64.b64encode(tf.io.encode_jpeg(image).numpy()).decode()
    requests = {
        "pixels": {"instances": [image.numpy().tolist()]},
        "JPEG": {
            "signature_name": "serving_bytes",
            "instances": [{"b64": encoded}],
        },
    }
    return {
        kind: json.dumps(value).encode() for kind, value in requests.items()
    }


async def ask(address, body, *, clients, seconds):
    """What this number of clients measures in that time."""
    latencies, refused = [], []
    headers = {"Content-Type": "application/json"}
    start = time.perf_counter()

    async def client(session):
        while (begin := time.perf_counter()) < start + seconds:
            async with session.post(
                address, data=body, headers=headers
            ) as response:
                await response.read()
                answered = response.status == 200
            took = time.perf_counter() - begin
            (latencies if answered else refused).append(took)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*[client(session) for _ in range(clients)])
    elapsed = time.perf_counter() - start
    p50, p99 = np.percentile(latencies, [50, 99]) if latencies else (0, 0)
    return {
        "p50_ms": float(p50) * 1e3,
        "p99_ms": float(p99) * 1e3,
        "images_per_second": len(latencies) / elapsed,
        "answers": len(latencies),
        "refused": len(refused),
    }


def print_table(report):
    settings = report["settings"]
    print(headline(report["machine"]))
    print(f"{settings['model']}, {settings['image_size']} pixels")
    print(
        f"{'request':9}{'clients':>8}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'images/s':>10}{'refused':>9}"
    )
    for row in report["rows"]:
        print(
            f"{row['request']:9}{row['clients']:8}{row['p50_ms']:9.1f}"
            f"{row['p99_ms']:9.1f}{row['images_per_second']:10.1f}"
            f"{row['refused']:9}"
        )


if __name__ == "__main__":
    main()
