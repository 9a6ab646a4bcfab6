"""Runs the members of a population: on the cores of this machine, or on an executor."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from itertools import chain, islice, takewhile
from typing import Any

from backends import get_backend
from mnist_accel.data import Dataset
from mnist_accel.errors import usage_errors
from mnist_accel.populations.grid import Grid
from mnist_accel.populations.member import (
    MemberResult,
    MemberTraining,
    single_threaded,
    train_member,
)
from mnist_accel.populations.together import program_of, train_together
from mnist_accel.recipes.settings import TrainSettings
from mnist_accel.runs.setup import make_sampler, make_trainer, split_run_data
from mnist_accel.training.data import TrainingData

# Members that are submitted and have not ended. More would only fill the memory of a scheduler.
MAX_SUBMITTED = 1000


class LocalMembers:
    """Trains members in this process, which share the data set: in threads, or together on a GPU.

    Args:
        grid: the settings of the members.
        dataset: the data set.
        backend: name of the backend.
        workers: number of threads, each of which trains a member. With one thread, the backend may
            train several members in one call; `prepare` finds out.
        device: name of the device, or its number; None for the default.
        before: called with each training before its first step.

    Attributes:
        workers: number of members that train at the same time.
        interrupted: trainings that were interrupted after they had begun.
        on_steps: called with the number of steps of each chunk of a member, from several threads.
        on_skipped: called with the number of steps that a member does not make: those before the
            checkpoint from which it continues, and those after an early end.
    """

    def __init__(
        self,
        grid: Grid,
        dataset: Dataset,
        *,
        backend: str,
        workers: int,
        device: int | str | None = None,
        before: Callable[[MemberTraining], None] = lambda training: None,
    ) -> None:
        self.grid = grid
        self._dataset = dataset
        self._backend = backend
        self._device = device
        self.before = before
        self._threads = workers
        self.workers = workers
        self.on_steps: Callable[[int], None] = lambda steps: None
        self.on_skipped: Callable[[int], None] = lambda steps: None
        self._prepared: dict[object, TrainingData] = {}
        self._running: dict[int, MemberTraining] = {}
        self._is_stopping = False
        self.interrupted: list[MemberTraining] = []

    def request_stop(self, reason: str) -> None:
        """Interrupt all members after their current chunks; may be called by a signal handler."""
        self._is_stopping = True
        for training in list(self._running.values()):
            training.interrupt()

    def train(self, members: Iterable[int]) -> Iterator[MemberResult]:
        """Train members, at most `workers` at a time, and yield their results as they end.

        After a request to stop, the iterator ends when the current chunks of steps have ended.
        """
        # No more than the workers can start, so that a stop has nothing to cancel.
        wanted = self._until_stop(members)
        try:
            if self._threads > 1 or self.workers == 1:
                yield from self._train_in_threads(wanted)
                return
            groups: dict[object, list[int]] = {}
            for member in wanted:
                groups.setdefault(program_of(self.grid.members[member]), []).append(member)
            for group in groups.values():
                if not self._is_stopping:
                    yield from self._train_group(group)
        except BaseException:
            self.request_stop("interrupted")
            raise

    def _train_in_threads(self, members: Iterable[int]) -> Iterator[MemberResult]:
        with ThreadPoolExecutor(self._threads, thread_name_prefix="mnist_accel-member") as pool:

            def submit(member: int) -> Future[MemberResult | None]:
                return pool.submit(self._run, member)

            try:
                for future in _as_they_end(members, submit, at_once=self._threads):
                    result = future.result()
                    if result is not None:
                        yield result
            except BaseException:  # the pool waits for its threads
                self.request_stop("interrupted")
                raise

    def _train_group(self, members: list[int]) -> Iterator[MemberResult]:
        """Train members with the same program: together if the backend can, else in turn."""
        first = self._begin(members[0])
        compiled, data = first.trainer.compiled, first.data
        if compiled is None:
            yield from filter(None, map(self._run, self._until_stop(members)))
            return
        loaded = data.for_epoch(compiled)
        at_once = compiled.members_at_once(loaded, first.images_per_step)
        others = (self._begin(member, data) for member in self._until_stop(members[1:]))
        trainings = chain([first], others)
        for training, result in train_together(trainings, compiled, loaded, at_once=at_once):
            del self._running[training.member]
            self._record_end(training, result)
            if result is not None:
                yield result

    def _until_stop(self, members: Iterable[int]) -> Iterator[int]:
        return takewhile(lambda member: not self._is_stopping, members)

    def prepare(self) -> None:
        """Compile the kernels of all members, and prepare the training images that they share.

        Members with held-out images have images of their own.
        """
        seen = set()
        for settings in self.grid.members:
            key = (
                *(settings.optimizer, settings.hidden_sizes, settings.activation),
                settings.batch_size,
            )
            images = _shared_images(settings)
            if (key, images) in seen:
                continue
            seen.add((key, images))
            with usage_errors():
                data = split_run_data(self._dataset, settings)
            backend = single_threaded(self._backend, self._device)
            trainer = make_trainer(
                settings, backend, examples=data.train_count, form=self._dataset.form
            )
            if images in self._prepared:
                prepared = trainer.share(self._prepared[images])  # compiles the steps
            else:
                prepared = trainer.prepare(*data.train)
                if not settings.validation_split:
                    self._prepared[images] = prepared
            trainer.model.prepare()  # after the training, which helpers compile
            if trainer.compiled is not None and self._threads == 1:
                batch_size = make_sampler(settings, data.train_count).images_per_step
                loaded = prepared.for_epoch(trainer.compiled)
                at_once = trainer.compiled.members_at_once(loaded, batch_size)
                self.workers = max(self.workers, at_once)

    def _run(self, member: int) -> MemberResult | None:
        """Train a member; return None if it is interrupted."""
        training = self._begin(member)
        try:
            result = training.run()
        finally:
            del self._running[member]
        self._record_end(training, result)
        return result

    def _record_end(self, training: MemberTraining, result: MemberResult | None) -> None:
        """Keep an interrupted training, and report the steps that an ended one does not make."""
        if result is None:
            self.interrupted.append(training)
        else:
            self.on_skipped(training.steps_left)

    def _begin(self, member: int, prepared: TrainingData | None = None) -> MemberTraining:
        """Return the training of a member, which a request to stop interrupts from now on.

        Args:
            member: number of the member.
            prepared: its training images; None for those of `prepare`.
        """
        settings = self.grid.members[member]
        training = MemberTraining(
            member,
            settings,
            single_threaded(self._backend, self._device),
            self._dataset,
            prepared=prepared or self._prepared.get(_shared_images(settings)),
            on_steps=self.on_steps,
        )
        self.before(training)
        self.on_skipped(training.trainer.step)
        self._running[member] = training
        if self._is_stopping:  # the request came before the training was listed
            training.interrupt()
        return training


class ExecutorMembers:
    """Trains members in the processes of an executor.

    Args:
        executor: runs the members; its processes must be able to import this package.
        grid: the settings of the members.
        backend: name of the backend.
        data: the data set, or an object that the executor replaces by it; None if each process
            loads the data set that the settings name.
        workers: number of members that train at the same time, for display.

    Attributes:
        workers: see above.
        on_steps: called with the number of steps of each member that has ended.
    """

    def __init__(
        self, executor: Executor, grid: Grid, *, backend: str, data: Any, workers: int = 1
    ) -> None:
        self._executor = executor
        self.grid = grid
        self._backend = backend
        self._data = data
        self.workers = workers
        self.on_steps: Callable[[int], None] = lambda steps: None
        self._submitted: set[Future[MemberResult]] = set()
        self._is_stopping = False

    def request_stop(self, reason: str) -> None:
        """Cancel the members that the executor can cancel; may be called by a signal handler.

        An executor of `concurrent.futures` cancels those that have not begun, Dask all of them.
        """
        self._is_stopping = True
        for future in list(self._submitted):
            future.cancel()

    def train(self, members: Iterable[int]) -> Iterator[MemberResult]:
        """Train members, and yield their results as they end.

        After a request to stop, the iterator ends when the members that are not cancelled have
        ended.

        Raises:
            CancelledError: the executor cancelled a member, for example after losing its workers.
        """
        wanted = takewhile(lambda member: not self._is_stopping, members)
        try:
            for future in _as_they_end(
                wanted,
                self._submit,
                at_once=MAX_SUBMITTED,
                while_waiting=lambda: self.on_steps(0),  # refreshes the display
            ):
                if self._is_stopping and future.cancelled():
                    continue
                result = future.result()
                self.on_steps(result.steps)
                yield result
        except BaseException:
            self.request_stop("interrupted")
            raise

    def _submit(self, member: int) -> Future[MemberResult]:
        settings = self.grid.members[member]
        future = self._executor.submit(train_member, member, settings, self._backend, self._data)
        self._submitted.add(future)
        if self._is_stopping:  # the request came before the member was listed
            future.cancel()
        future.add_done_callback(self._submitted.discard)
        return future


def _shared_images(settings: TrainSettings) -> tuple[object, ...]:
    """Return what the prepared training images of a member depend on, if none are held out."""
    return settings.dtype, settings.limit_train, settings.validation_split


def worker_count(backend: str, threads: int | None) -> int:
    """Return how many members a backend trains at the same time in this process.

    Only compiled epochs on the CPU leave the interpreter free for other members.

    Args:
        backend: name of the backend.
        threads: the number to use if it trains several; None for the number of cores.
    """
    made = get_backend(backend)
    if made.max_threads is None or not made.compiles_epochs:
        return 1
    return threads or made.max_threads


def _as_they_end(
    members: Iterable[int],
    submit: Callable[[int], Future[Any]],
    *,
    at_once: int,
    while_waiting: Callable[[], None] = lambda: None,
) -> Iterator[Future[Any]]:
    """Submit members, at most `at_once` at a time, and yield their futures as they end.

    `while_waiting` is called at least once per second.
    """
    waiting = iter(members)
    pending = {submit(member) for member in islice(waiting, at_once)}
    while pending:
        ended, pending = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
        while_waiting()
        yield from ended
        pending |= {submit(member) for member in islice(waiting, len(ended))}
