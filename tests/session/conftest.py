"""Sessions of `pytest benchmarks` for the tests of this folder, and images for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.session.sessions import ROOT, Done, Sessions


@pytest.fixture(scope="session")
def sessions() -> Iterator[Sessions]:
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    started = Sessions()
    yield started
    started.close()


def small(sessions: Sessions, folder: Path, *arguments: str, **environment: str) -> Done:
    """`pytest benchmarks` in a folder, where the default storage then is, on synthetic images with the one network."""
    options = ["--engine", "reference", "--architectures", "conv5x5", "--dataset", "synthetic", "--train-images", "8"]
    return sessions.run(folder, str(ROOT / "benchmarks"), *options, *arguments, **environment)


@pytest.fixture
def session(sessions: Sessions, tmp_path: Path) -> Callable[..., Done]:
    """`small` in the test's own folder, unless another is given."""

    def run(*arguments: str, folder: Path = tmp_path, **environment: str) -> Done:
        return small(sessions, folder, *arguments, **environment)

    return run


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 classes with 8 training and 8 test images each."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    for split in ("train", "test"):
        for c in range(3):
            (folder / split / f"c{c}").mkdir(parents=True)
            for i in range(8):
                pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / f"c{c}" / f"{i}.png")
    return folder
