"""Clocks assign time to phases."""

from resnet_bench.clock import Clock


def test_clock_assigns_time_to_phases(monkeypatch):
    """A phase begins where the previous one ended; `start` leaves time out."""
    times = iter([0.0, 10.0, 11.0, 13.0, 100.0, 104.0])
    monkeypatch.setattr("resnet_bench.clock.time.perf_counter", lambda: next(times))
    clock = Clock()
    clock.start()  # at 10: the 10 before belong to no phase
    clock.lap("data")
    clock.lap("forward")
    clock.start()
    clock.lap("data")
    assert clock.seconds == {"data": 5.0, "forward": 2.0, "backward": 0.0, "optimizer": 0.0}
