"""docs/schema.md against the models that write and read the files."""

import re
from pathlib import Path

import pytest

from resnet_bench import results

DOCUMENT = (Path(__file__).parent.parent / "docs" / "schema.md").read_text()
MODELS = [m for m in vars(results).values() if isinstance(m, type) and issubclass(m, results.Model)]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_every_key_is_documented(model):
    missing = [key for key in model.model_fields if not re.search(rf"`{key}`", DOCUMENT)]
    assert not missing


def test_document_names_the_version():
    assert f"Version {results.SCHEMA_VERSION}." in DOCUMENT
