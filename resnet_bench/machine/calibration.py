"""How fast the machine is at what training needs: its memory bandwidth and arithmetic rate, measured in seconds.

Both are measured at the sizes that the networks have. One peak figure of each would not do, since no network reaches
it: the parameters and moments of `fc1` fit a large L3 cache and those of `fc3` do not, and a convolution over a 2×2 map
runs at a fraction of the rate of a 1024×1024 matrix product.
"""

from __future__ import annotations

import math
import mmap
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional

from resnet_bench import progress
from resnet_bench.architectures import Convolution, convolutions, every
from resnet_bench.machine.rates import STATE_BYTES, Calibration, Measurement, Quantity, convolution_name
from resnet_bench.options import require_threads
from resnet_bench.recipe import Recipe

WORKING_SETS = (4_000_000, 16_000_000, 8192 * 1000 * STATE_BYTES, 16384 * 1000 * STATE_BYTES)
"""Bytes of parameters and moments, in rising order. The L2 caches of a few cores hold the first. The second is somewhat
less than all of `fc1` (18 MB) or `conv5x5` (21 MB), which a large L3 cache holds. The third is the first FC layer of
`baseline`. The fourth is the first FC layer of `blocks2`, about as much as all of `fc3`. The last two exceed the caches
of most machines."""

FRESH_BYTES = 8192 * 1000 * 4
"""Bytes of one temporary as large as the first FC layer of `baseline`; default Adam allocates several in each step."""

GEMM_SIZE = 1024
"""Side of the square matrices. It is large enough to reach the peak rate of a matrix product, and the three matrices
take 12 MB, so the product does not wait for memory."""

BATCH_SIZE = Recipe().batch_size  # of the convolutions

MIN_OPERATIONS = 1_000_000
"""Convolutions with fewer FLOP (the 1×1 ones over the smallest maps) are left out: the call takes longer than the
arithmetic, so the time does not show the arithmetic rate."""

CONVOLUTIONS = tuple(
    dict.fromkeys(
        c
        for architecture in every().values()
        for c in convolutions(architecture)
        if 2 * BATCH_SIZE * c.multiply_accumulates >= MIN_OPERATIONS
    )
)
"""Every distinct convolution of the networks: at batch size 4 their rates differ tenfold."""

ROUNDS = 15  # samples of each measurement, taken in turn so that a disturbance hits few samples of each
MIN_ROUNDS = 5
TIME_LIMIT = 5.0  # seconds after which no further round starts, for slow machines
SAMPLE_SECONDS = 0.003  # shortest sample: a thousand times the clock's resolution
SHARE = 0.05  # of the time that samples between other work may take


def calibrate(threads: int | None = None) -> Calibration:
    """Measure the machine with `threads` threads (None: as many as torch uses now), in about three seconds.

    All operations write to memory that was touched before, except where the first touch is what is measured. This needs
    0.2 GB of memory. Progress is shown where that takes longer.

    Raises:
        UserError: for fewer than one thread.
    """
    require_threads(threads)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads or threads_before)
    start = time.perf_counter()
    try:
        sampler = Sampler()
        for done in progress.each(range(ROUNDS), "measuring the machine", "rounds"):
            if done >= MIN_ROUNDS and time.perf_counter() - start > TIME_LIMIT:
                break
            sampler.sample()
        return sampler.calibration()
    finally:
        torch.set_num_threads(threads_before)


# ---------------------------------------------------------------------------------------------------------------------
# Measuring


@dataclass(frozen=True)
class _Probe:
    """How one rate is measured.

    Attributes:
        name, quantity, size: of the `Measurement`.
        work: bytes or FLOP of one call.
        seconds: makes as many calls as it is told and returns the seconds that they took.
    """

    name: str
    quantity: Quantity
    size: int
    work: int
    seconds: Callable[[int], float]


class Sampler:
    """Measures all rates a little at a time, so that they can be those of the minutes in which something else runs.

    It uses as many threads as torch does, and keeps 0.2 GB of memory for as long as it lives.

    Attributes:
        seconds: that measuring has taken so far.
    """

    def __init__(self) -> None:
        """Allocate the memory, warm up, and find out how many calls make a sample; this takes about a second."""
        start = time.perf_counter()
        with torch.inference_mode():
            self._probes = list(_probes())
            self._calls = {}
            for p in self._probes:
                self._calls[p.name] = min(1000, math.ceil(SAMPLE_SECONDS / min(p.seconds(1), p.seconds(1))))
            for p in self._probes:  # to warm up: clock rate, pages, kernels that are compiled on first use
                p.seconds(self._calls[p.name])
        self._rates: dict[str, list[float]] = {p.name: [] for p in self._probes}
        self._due = 0.0
        self.seconds = time.perf_counter() - start

    def sample(self) -> None:
        """Take one sample of each rate; this takes some tenths of a second."""
        start = time.perf_counter()
        with torch.inference_mode():
            for p in self._probes:
                calls = self._calls[p.name]
                self._rates[p.name].append(p.work * calls / p.seconds(calls))
        end = time.perf_counter()
        self.seconds += end - start
        self._due = end + (end - start) / SHARE

    def sample_if_due(self) -> None:
        """Take a sample where this has been done for less than `SHARE` of the time."""
        if time.perf_counter() >= self._due:
            self.sample()

    def calibration(self) -> Calibration:
        """The samples so far as rates; where they are fewer than `MIN_ROUNDS`, takes the missing ones now."""
        while min(map(len, self._rates.values())) < MIN_ROUNDS:
            self.sample()
        measurements = {}
        for p in self._probes:
            low, median, high = statistics.quantiles(self._rates[p.name], n=4, method="inclusive")
            measurements[p.name] = Measurement(
                quantity=p.quantity,
                unit="FLOP/s" if p.quantity in ("gemm", "convolution") else "bytes/s",
                size=p.size,
                median=median,
                low=low,
                high=high,
                samples=len(self._rates[p.name]),
            )
        return Calibration(threads=torch.get_num_threads(), seconds=self.seconds, measurements=measurements)


def _probes() -> Iterator[_Probe]:
    state = torch.ones(3, max(WORKING_SETS) // STATE_BYTES)
    total = torch.empty(())
    for size in WORKING_SETS:
        part = [tensor[: size // STATE_BYTES] for tensor in state]
        work = 4 * sum(tensor.numel() for tensor in part)

        def read(part: list[torch.Tensor] = part) -> None:
            for tensor in part:
                torch.sum(tensor, 0, out=total)

        def update(part: list[torch.Tensor] = part) -> None:
            for tensor in part:
                tensor.mul_(1.0)

        yield _Probe(f"read {_megabytes(size)}", "read", size, work, _timed(read))
        yield _Probe(f"update {_megabytes(size)}", "update", size, 2 * work, _timed(update))
    yield _Probe(f"first touch {_megabytes(FRESH_BYTES)}", "first touch", FRESH_BYTES, FRESH_BYTES, _timed_first_touch)

    a, b, product = torch.ones(3, GEMM_SIZE, GEMM_SIZE)
    work = 2 * GEMM_SIZE**3
    yield _Probe(f"gemm {GEMM_SIZE}", "gemm", work, work, _timed(lambda: torch.mm(a, b, out=product)))
    for convolution in CONVOLUTIONS:
        work = 2 * BATCH_SIZE * convolution.multiply_accumulates
        yield _Probe(convolution_name(convolution), "convolution", work, work, _timed_convolution(convolution))


def _timed(call: Callable[[], object]) -> Callable[[int], float]:
    def seconds(calls: int) -> float:
        call()  # fetches back into the caches what the probes before have displaced
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - start

    return seconds


def _timed_first_touch(calls: int) -> float:
    # The memory comes straight from the operating system: an allocator may hand out pages that were touched before.
    options = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    seconds = 0.0
    for _ in range(calls):
        fresh = torch.frombuffer(mmap.mmap(-1, FRESH_BYTES, **options), dtype=torch.float32)
        start = time.perf_counter()
        fresh.fill_(1.0)
        seconds += time.perf_counter() - start
    return seconds


def _timed_convolution(c: Convolution) -> Callable[[int], float]:
    """Times the convolution in the faster memory layout; the allocator reuses the memory of its small output."""
    images = torch.ones(BATCH_SIZE, c.in_channels, c.input_size, c.input_size)
    kernels = torch.ones(c.out_channels, c.in_channels, c.kernel_size, c.kernel_size)

    def in_layout(layout: torch.memory_format) -> Callable[[int], float]:
        x, w = images.to(memory_format=layout), kernels.to(memory_format=layout)
        return _timed(lambda: functional.conv2d(x, w, None, c.stride, c.kernel_size // 2))

    layouts = [in_layout(layout) for layout in (torch.contiguous_format, torch.channels_last)]
    return min(layouts, key=lambda seconds: min(seconds(3) for _ in range(3)))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
