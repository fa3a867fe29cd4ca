"""Virtual patients in memory, without end, for training that never touches the disk.

Patient `i` of a seed is the same whoever makes it, so the order and the voxels do not depend on the
number of workers. Each worker process has at most `AHEAD` finished patients in hand and waits until
the consumer takes one: memory is bounded however many patients there are.
"""

from __future__ import annotations

import itertools
import multiprocessing as mp
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from triage.simulate.patient import Patient, simulate

T = TypeVar("T")
AHEAD = 2  # finished patients that a worker may hold


def patient(seed: int, number: int, **settings: Any) -> Patient:
    """Patient `number` of a seed, as `stream` gives it."""
    return simulate((seed, number), **settings)[0]


def stream(
    seed: int,
    *,
    patients: int | None = None,
    first: int = 0,
    step: int = 1,
    workers: int = 0,
    **settings: Any,
) -> Iterator[Patient]:
    """Patients `first`, `first + step` ... of a seed; without end, or until `patients` are made.

    `settings` as `simulate` takes them (one patient an anatomy). `workers`: processes beside this
    one; 0 makes the patients here. They end with the iterator: when it is exhausted, closed or
    forgotten. An error of a worker is raised here, with its traceback. Start it below
    `if __name__ == "__main__"` in a script, as always with spawned processes.
    """
    if "variants" in settings:
        raise ValueError("A stream has one patient an anatomy: `variants` is not for it.")
    if workers < 0 or step < 1 or first < 0:
        raise ValueError(
            f"Expected first >= 0, step >= 1 and workers >= 0, got {first}, {step}, {workers}."
        )
    if patients is None:
        numbers: Iterable[int] = itertools.count(first, step)
    else:
        numbers = range(first, first + step * patients, step)
    return ordered(partial(patient, seed, **settings), numbers, workers)


def ordered(make: Callable[[int], T], numbers: Iterable[int], workers: int) -> Iterator[T]:
    """`make(n)` for each number, in their order, by `workers` processes (0: in this one).

    `make` must be picklable, its results too; each process works on one thread. `numbers` may be
    endless (`range` or `itertools.count`), and each worker walks through its own copy of them.
    """
    if workers == 0:
        yield from map(make, numbers)
        return
    crew = [_Worker(make, numbers, k, workers) for k in range(workers)]
    try:
        for turn, number in enumerate(numbers):
            yield crew[turn % workers].take(number)
    finally:
        for worker in crew:
            worker.stop()


class _Worker:
    """A process that makes every `workers`-th number and offers the results in order."""

    def __init__(
        self, make: Callable[[int], Any], numbers: Iterable[int], k: int, workers: int
    ) -> None:
        context = mp.get_context("spawn")  # fork and the threads of torch do not go together
        self.pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(
            target=_work, args=(theirs, make, numbers, k, workers), daemon=True
        )
        self.process.start()
        theirs.close()  # so that its end is seen here

    def take(self, number: int) -> Any:
        try:
            ok, value, trace = pickle.loads(self.pipe.recv_bytes())  # noqa: S301 - from _send  # nosec B301
        except EOFError:
            self.process.join(10)
            raise RuntimeError(
                f"The process that simulates patient {number} ended without a result (exit code "
                f"{self.process.exitcode}); too little memory is the usual reason."
            ) from None
        if ok:
            return value
        value.add_note(f"In the process that simulates patient {number}:\n{trace}")
        raise value

    def stop(self) -> None:
        self.pipe.close()  # a worker that sends now ends by itself; one that computes is ended
        self.process.terminate()
        self.process.join()


def _work(
    pipe: Connection, make: Callable[[int], Any], numbers: Iterable[int], k: int, workers: int
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the consumer's, who ends this process
    torch.set_num_threads(1)
    shelf: queue.Queue[Any] = queue.Queue(maxsize=AHEAD - 1)  # and one on the way
    gone = threading.Event()
    porter = threading.Thread(target=_send, args=(pipe, shelf, gone), daemon=True)
    porter.start()
    for number in itertools.islice(numbers, k, None, workers):
        try:
            item = (True, _plain(make(number)), "")
        except Exception as error:  # raised again by the consumer
            item = (False, _portable(error), traceback.format_exc())
        if not _offer(shelf, item, gone) or not item[0]:
            break
    _offer(shelf, None, gone)
    porter.join()


def _offer(shelf: queue.Queue[Any], item: Any, gone: threading.Event) -> bool:
    """Wait until there is room; False where nobody listens any more."""
    while not gone.is_set():
        try:
            shelf.put(item, timeout=0.5)
            return True
        except queue.Full:
            continue
    return False


def _send(pipe: Connection, shelf: queue.Queue[Any], gone: threading.Event) -> None:
    """Sends by value: torch would pass handles of shared memory that end with the process."""
    while (item := shelf.get()) is not None:
        try:
            pipe.send_bytes(pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL))
        except (BrokenPipeError, ConnectionError):  # nobody listens any more
            gone.set()
            return


def _portable(error: Exception) -> Exception:
    """The error itself if it survives pickling, else its text."""
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes  # nosec B301
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error if type(copy) is type(error) else RuntimeError(str(error))


def _plain(value: T) -> T:
    """Tensors of a patient on the CPU, where every process can hold them."""
    if isinstance(value, Patient):
        value.hu, value.organs = value.hu.cpu(), value.organs.cpu()
        value.masks = {target: mask.cpu() for target, mask in value.masks.items()}
    return value


class Patients(IterableDataset[Any]):
    """A stream as a torch data set: the loader's workers share the numbers between them.

    `turn` makes of a patient what the loader shall collate (the voxels, say); it runs in the
    worker. With `batch_size=None` and no `turn` the loader yields `Patient` objects. Give a loader
    with workers `multiprocessing_context="spawn"`: forks of a process with threads hang or die.
    """

    def __init__(
        self,
        seed: int,
        *,
        patients: int | None = None,
        turn: Callable[[Patient], Any] | None = None,
        **settings: Any,
    ) -> None:
        self.seed, self.patients, self.turn, self.settings = seed, patients, turn, settings

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        k, n = (info.id, info.num_workers) if info else (0, 1)
        share = None if self.patients is None else len(range(k, self.patients, n))
        made = stream(self.seed, patients=share, first=k, step=n, **self.settings)
        return map(self.turn, made) if self.turn else made


def voxels(patient: Patient) -> tuple[Tensor, Tensor]:
    """HU float32 (1, X, Y, Z) and organ labels uint8 (1, X, Y, Z): a `turn` for `Patients`."""
    return patient.hu[None], patient.organs[None]
