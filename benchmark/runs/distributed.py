"""One run on several devices of this machine: processes that form one group, as Lightning's DDP wants them.

Lightning would start the whole command anew in each of them, and each would ask for the locks that this process
holds. Here they are started with the part of a run that is a Trainer's, and give its result back.
"""

import faulthandler
import io
import logging
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from threadpoolctl import threadpool_limits

from benchmark.runs.children import WorkerError, deaf_to_interrupts, end_with_parent, how_it_ended, stop
from compressors.base import Compressor

Result = TypeVar("Result")
log = logging.getLogger(__name__)


class DeviceError(ValueError):
    """Devices that are not there, or work that cannot be shared between them."""

    exit_status = 2


@dataclass(frozen=True)
class Devices:
    """What the Trainers of a run work on.

    Each of several devices takes its share of every batch, whose samples are the same on any number of them.
    BatchNorm in training sees that share alone.

    Args:
        accelerator: ``cpu``, ``gpu``, or ``auto`` for a GPU where there is one.
        count: GPUs, or processes on the CPU.
        strategy: a name of Lightning's DDP, or ``auto`` for none on one device and ``ddp`` on several. Strategies that
            cut a network into parts cannot work: a compressor looks at whole weights.

    Raises:
        DeviceError: there are not so many GPUs.
    """

    accelerator: str = "auto"
    count: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        if self.kind == "gpu" and self._gpus < self.count:
            raise DeviceError(
                f"{self.count} GPUs are asked for, and {self._gpus} can be used here: ask for no more, "
                "or for processes on the CPU with --accelerator cpu"
            )

    @property
    def grouped(self) -> bool:
        """Whether a group of processes does the work."""
        return self.count > 1 or self.strategy != "auto"

    @property
    def kind(self) -> str:
        """``gpu`` or ``cpu``: what ``auto`` comes to."""
        if self.accelerator != "auto":
            return self.accelerator
        return "gpu" if self._gpus else "cpu"

    def trainer_settings(self) -> dict[str, Any]:
        """Arguments of a Trainer, in this process or in one of a :class:`DeviceGroup`."""
        if not self.grouped:
            return {"accelerator": self.accelerator, "devices": 1}
        plugins = [LightningEnvironment()]  # or it might take the group for one of a cluster's scheduler
        return {"accelerator": self.kind, "devices": self.count, "strategy": self._ddp, "plugins": plugins}

    def describe(self) -> dict[str, Any]:
        """What a record keeps of them."""
        return {"accelerator": self.kind, "devices": self.count, "strategy": self._ddp if self.grouped else "auto"}

    @property
    def _gpus(self) -> int:
        return torch.cuda.device_count() or int(torch.backends.mps.is_available() and not self.grouped)

    @property
    def _ddp(self) -> str:
        return "ddp" if self.strategy == "auto" else self.strategy


class DeviceGroup:
    """Calls functions on some devices; use it as a context manager.

    On a single device that is a plain call. On several, a process for each is started at the first call and kept for
    the next ones; all of them make the call together, as ranks of one ``torch.distributed`` group.
    """

    def __init__(self, devices: Devices | None = None) -> None:
        self.devices = devices or Devices()
        self._folder: TemporaryDirectory[str] | None = None
        self._members: list[_Member] = []

    def __enter__(self) -> "DeviceGroup":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """``function(*arguments)``; in a group, what the call returned in rank 0, its tensors on the CPU.

        A group that breaks (a process dies, or a connection between them) is started anew and called once more.

        Raises:
            DeviceError: the function, an argument or the result cannot be sent to another process.
            WorkerError: the group broke, and the new one as well.
            Exception: whatever the function raises, in any of the ranks.
        """
        if not self.devices.grouped:
            return function(*arguments)
        task = _packed((function, arguments))
        try:
            return _unpacked(self._ask(task))
        except WorkerError as error:
            log.warning("%s; a new group of processes tries once more", error)
            return _unpacked(self._ask(task))

    def _ask(self, task: bytes) -> bytes:
        """What rank 0 answers when all make a call."""
        try:
            if not self._members:
                self._start()
            for member in self._members:
                with suppress(BrokenPipeError):  # it is dead, and will be heard to be
                    member.connection.send_bytes(task)
            return _answers(self._members)[0]
        except BaseException:
            self.close()  # the other ranks wait for one that will not come
            raise

    def close(self) -> None:
        """End the processes; another call would start new ones."""
        stop([member.process for member in self._members])
        for member in self._members:
            member.connection.close()
        self._members = []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start(self) -> None:
        self._folder = TemporaryDirectory(prefix="snnbench-")
        meeting_point = Path(self._folder.name, "group").as_uri()
        threads = max(1, torch.get_num_threads() // self.devices.count)
        with deaf_to_interrupts():
            for rank in range(self.devices.count):
                self._members.append(_start_member(rank, self.devices, threads, meeting_point))


@dataclass(frozen=True)
class _Member:
    """The parent's side of a process of a group."""

    process: SpawnProcess
    connection: Connection

    def hear(self) -> bytes | Exception | None:
        """What the process answers; None if it died."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return None


def _start_member(rank: int, devices: Devices, threads: int, meeting_point: str) -> _Member:
    """A new process; its interpreter is a fresh one, because a forked CUDA or thread pool does not work."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, rank, devices, threads, meeting_point))
    process.start()
    theirs.close()  # so that the member's end is the only one, and its death is heard
    return _Member(process, ours)


def _answers(members: Sequence[_Member]) -> list[bytes]:
    """What the members answer, in their order; a death or an error of one is raised at once.

    Raises:
        WorkerError: a process died, which is said rather than the errors of others that miss it, or one lost another.
    """
    heard: dict[int, bytes] = {}
    while waiting := {member.connection: rank for rank, member in enumerate(members) if rank not in heard}:
        ranks = [waiting[connection] for connection in wait(list(waiting)) if isinstance(connection, Connection)]
        answers = {rank: members[rank].hear() for rank in ranks}
        for rank, answer in answers.items():
            if answer is None:
                how = how_it_ended(members[rank].process.exitcode or 0, "use fewer --devices")
                raise WorkerError(f"the process of rank {rank} {how}")
        for rank, answer in answers.items():
            if isinstance(answer, Exception):
                raise WorkerError(f"rank {rank} lost the others: {answer}") if _is_lost(answer) else answer
            heard[rank] = answer or b""
    return [heard[rank] for rank in range(len(members))]


def _is_lost(error: Exception) -> bool:
    """Whether an error is one of the connection between processes, as gloo and nccl tell of it."""
    return isinstance(error, dist.DistBackendError) or "gloo/transport" in str(error)


def _serve(connection: Connection, rank: int, devices: Devices, threads: int, meeting_point: str) -> None:
    """A member's life: join the group, and make the calls it is sent until told to stop."""
    end_with_parent()
    faulthandler.enable()  # a crash in compiled code would say nothing
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # unwinds, so that nothing half-written is left behind
    os.environ["LOCAL_RANK"] = str(rank)  # tells Lightning who this is, and to start nobody else
    torch.set_num_threads(threads)
    with threadpool_limits(threads), suppress(EOFError, BrokenPipeError):
        _join(rank, devices, meeting_point)
        try:
            while True:
                connection.send(_answer(connection.recv_bytes(), rank))
        finally:
            dist.destroy_process_group()


def _join(rank: int, devices: Devices, meeting_point: str) -> None:
    if devices.kind == "gpu":
        torch.cuda.set_device(rank)
    backend = "nccl" if devices.kind == "gpu" else "gloo"
    dist.init_process_group(backend, init_method=meeting_point, rank=rank, world_size=devices.count)


def _answer(task: bytes, rank: int) -> bytes | Exception:
    """Make a call: rank 0 answers with its result, every rank with its error."""
    try:
        function, arguments = _unpacked(task)
        result = function(*arguments)
        return _packed(result) if rank == 0 else b""
    except Exception as error:  # the caller's to deal with, as if it had happened there
        error.add_note(traceback.format_exc())
        return _sendable(error)


def _sendable(error: Exception) -> Exception:
    """The error, or one that says the same where pickle does not know how it is built."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def _packed(content: Any) -> bytes:
    """Any object as bytes. Not as multiprocessing sends it: that would put all ranks on the same memory."""
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise DeviceError(f"this cannot be sent to the processes of several devices, so use one: {error}") from error
    return buffer.getvalue()


def _unpacked(content: bytes, device: torch.device | str = "cpu") -> Any:
    """The object, its tensors on the device; for bytes of this program's own processes alone."""
    return torch.load(io.BytesIO(content), map_location=device, weights_only=False)


class OneNetwork(Callback):
    """Keeps the network one and the same on all devices; it stands after the compressor among a Trainer's callbacks.

    Ranks that compress the same network on the same data may differ in the last bits on GPUs, and so in their masks.
    They all go on with what rank 0 made.
    """

    def __init__(self, compressor: Compressor) -> None:
        self.compressor = compressor

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over weights, buffers and masks from rank 0."""
        if not dist.is_initialized():
            return
        for tensor in pl_module.state_dict().values():
            sent = tensor.contiguous()
            dist.broadcast(sent, 0)
            tensor.copy_(sent)
        made = trainer.strategy.broadcast(_packed(self.compressor.compression))
        self.compressor.state.compression = _unpacked(made, pl_module.device)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See that all ranks have the same weights.

        Raises:
            DeviceError: they differ.
        """
        if dist.is_initialized() and len(set(_of_all_ranks(_digest(pl_module)))) > 1:
            raise DeviceError(
                f"after the fit with {type(self.compressor).__name__} the devices have different weights: "
                "it trains parameters that it made after the fit began, which DDP does not see; use one device"
            )


def _of_all_ranks(value: str) -> list[str]:
    values = [""] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _digest(module: LightningModule) -> str:
    """Hash of the bits of all parameters."""
    digest = blake2b(digest_size=16)
    for parameter in module.parameters():
        digest.update(parameter.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
