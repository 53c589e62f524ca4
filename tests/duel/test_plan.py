"""The order of a duel and its duration."""

from collections import Counter

import pytest

from resnet_bench.duel.plan import Pilot, Settings, block_rounds, duration, rounds
from resnet_bench.errors import UserError


def settings(**changed):
    return Settings(
        **{"architectures": ("fc1",), "values": {}, "at_most": (), "processes": 8, "time_limit": 80.0, "states": "aged"}
        | changed
    )


def test_each_round_has_every_arm_once_and_each_pair_of_rounds_is_balanced():
    order = rounds(["a", "b", "c"], 8, "seed")
    assert all(sorted(r) == ["a", "b", "c"] for r in order)
    assert all(order[i + 1] == order[i][::-1] for i in range(0, 8, 2))
    places = Counter()
    for r in order:
        places.update({name: place for place, name in enumerate(r)})
    assert set(places.values()) == {8}  # the mean place of each is 1


def test_the_order_is_drawn_and_the_seed_decides_it():
    assert rounds(["a", "b"], 40, "x") == rounds(["a", "b"], 40, "x")
    firsts = [r[0] for r in rounds(["a", "b"], 40, "x")[::2]]
    assert set(firsts) == {"a", "b"}
    assert len(rounds(["a", "b"], 3, "x")) == 3


def test_a_pilot_tells_the_duration():
    pilot = Pilot.of(whole=10.0, between=3.0, blocks=4)  # one second a block, so four for all of them
    assert pilot == Pilot(6.0, 4.0)
    assert duration([pilot, Pilot(1.0, 1.0)], 2, 3) == 3 * (6 + 8 + 1 + 2)


def test_as_many_blocks_as_the_slowest_arm_has_time_for():
    assert block_rounds([Pilot(2.0, 2.0), Pilot(1.0, 1.0)], settings()) == 4  # ten seconds a process
    assert block_rounds([Pilot(9.0, 2.0)], settings()) == 1  # at least one
    assert block_rounds([Pilot(0.0, 1e-6)], settings()) == 20


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"processes": 0}, "--processes is 0"),
        ({"time_limit": 0.0}, "--time-limit is 0"),
        ({"accuracy_epochs": -1}, "--accuracy-epochs is -1"),
    ],
)
def test_numbers_out_of_range(changed, message):
    with pytest.raises(UserError, match=message):
        settings(**changed)
