"""The benchmarks among the tests of a session, and the case that each of them measures."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import NamedTuple

import pytest

ORDER = ("test_parameters", "test_epoch_time", "test_accuracy")
"""Test functions in the order in which they run: short ones first, so that there are results soon. Others run last."""


class Case(NamedTuple):
    """What one test measures: a network, an engine, and how epoch time is measured (empty in other benchmarks)."""

    architecture: str
    engine: str
    mode: str = ""


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The items sorted by `ORDER`; those of one function keep their order."""
    places = {name: place for place, name in enumerate(ORDER)}
    return sorted(items, key=lambda item: places.get(getattr(item, "originalname", ""), len(ORDER)))


def benchmarks(items: Sequence[pytest.Item]) -> list[pytest.Function]:
    """The items that are benchmarks of this suite. A session may have other tests too."""
    return [item for item in items if isinstance(item, pytest.Function) and "suite" in item.fixturenames]


def own_parameters(item: pytest.Function) -> dict[str, str]:
    """The parameters that the test function itself names. Plugins that repeat tests add parameters of their own."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    return {name: str(given[name]) for name in inspect.signature(item.function).parameters if name in given}


def cases(request: pytest.FixtureRequest) -> dict[Case, str]:
    """All cases of the session for which the requesting test function runs, each with its test's name."""
    items = [item for item in benchmarks(request.session.items) if item.function is request.function]
    return {Case(**own_parameters(item)): item.nodeid for item in items}
