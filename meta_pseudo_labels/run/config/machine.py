"""The settings of the machines that a run trains on."""

import dataclasses
from typing import ClassVar

from meta_pseudo_labels.utils.settings import ConfigError, Unread, setting

DISTRIBUTIONS = ("auto", "one_device", "mirrored", "multi_worker", "tpu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """Where training runs. A run may resume on other machines."""

    unread: ClassVar = (
        Unread(
            ("replicas_per_worker",),
            "--distribution={distribution} sets the number of replicas itself.",
            when=lambda settings: (
                settings["distribution"] in ("one_device", "tpu")
            ),
        ),
        Unread(
            ("use_tpu", "master", "num_cores_per_replica"),
            "--distribution={distribution} uses no TPU.",
            when=lambda settings: (
                settings["distribution"] not in ("auto", "tpu")
            ),
        ),
        Unread(
            ("num_cores_per_replica",),
            "it is for TPUs only, which --use_tpu, --master or "
            "--distribution=tpu asks for.",
            when=lambda settings: (
                not (
                    settings["distribution"] == "tpu"
                    or settings["use_tpu"]
                    or settings["master"]
                )
            ),
        ),
    )

    distribution: str = setting(
        "auto",
        "How training is distributed: one_device; mirrored, over the GPUs of "
        "this machine; multi_worker, over several machines; tpu. auto uses "
        "what there is: a TPU that --use_tpu or --master asks for, the "
        "workers of TF_CONFIG or --worker_addresses, several GPUs, or one "
        "device.",
        choices=DISTRIBUTIONS,
        free=True,
    )
    replicas_per_worker: int | None = setting(
        None,
        "Number of replicas on this machine; by default one per GPU. Without "
        "GPUs, the CPU is split into this many, to try things out.",
        low=1,
        high=1_000,
        free=True,
    )
    worker_addresses: str | None = setting(
        None,
        "Addresses of all workers, host:port separated by commas, the same "
        "list for each; the first one writes the run's files. By default "
        "those of TF_CONFIG.",
        free=True,
    )
    worker_index: int | None = setting(
        None,
        "Which of --worker_addresses this process is, from 0.",
        low=0,
        free=True,
    )
    deterministic: bool = setting(
        False,
        "Use only operations that give the same bits every time, where "
        "TensorFlow has them. This is slower on a GPU.",
        free=True,
    )
    use_tpu: bool = setting(
        False,
        "Train on TPUs. If there are none, training warns and uses this "
        "machine's devices.",
        free=True,
    )
    master: str | None = setting(
        None,
        "The TPU to use: local, on a TPU VM of one host; its name; or an "
        "address such as grpc://10.0.0.2:8470. By default local.",
        free=True,
    )
    dataset_service_replicas: int | None = setting(
        None,
        "Number of workers that the release asked its tf.data service for. No "
        "effect here: --data_service names a service, and all its workers "
        "help.",
        low=1,
        free=True,
    )
    running_local_dev: bool = setting(
        False,
        "No effect. In the release it forbids an early stop that never comes "
        "and shortens ImageNet's shuffle buffer.",
        free=True,
    )

    def check_machine(self):
        """Raises ConfigError if these settings do not go together."""
        if (self.worker_addresses is None) != (self.worker_index is None):
            raise ConfigError(
                "--worker_addresses and --worker_index go together; got "
                f"{self.worker_addresses} and {self.worker_index}."
            )
        workers = self.addresses
        for address in workers:
            host, _, port = address.rpartition(":")
            if not host or not port.isdigit():
                raise ConfigError(
                    f"--worker_addresses: {address!r} is not host:port, such "
                    "as 10.0.0.2:12345."
                )
        if workers and self.worker_index >= len(workers):
            raise ConfigError(
                f"--worker_index={self.worker_index}: --worker_addresses has "
                f"{len(workers)} workers, numbered from 0."
            )
        if workers and self.distribution not in ("auto", "multi_worker"):
            raise ConfigError(
                f"--worker_addresses needs --distribution=multi_worker; got "
                f"{self.distribution}."
            )
        if self.use_xla_sharding and self.num_cores_per_replica == 1:
            raise ConfigError(
                "--use_xla_sharding splits images over the cores of a replica; "
                "give --num_cores_per_replica of 2 or more."
            )
        if self.jit_compile and self.distribution in (
            "mirrored",
            "multi_worker",
        ):
            raise ConfigError(
                f"--jit_compile works on one device, not with --distribution="
                f"{self.distribution}; leave one of them out."
            )

    @property
    def addresses(self):
        """The workers that the settings name, a list."""
        text = self.worker_addresses
        return [address.strip() for address in text.split(",")] if text else []
