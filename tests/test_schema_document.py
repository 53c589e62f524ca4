"""docs/schema.md against the models that write and read the files."""

import ast
import hashlib
import json
import re
from pathlib import Path

import pytest

from resnet_bench import schema
from resnet_bench.results import frame

DOCUMENT = (Path(__file__).parent.parent / "docs" / "schema.md").read_text()
MODELS = [m for m in vars(schema).values() if isinstance(m, type) and issubclass(m, schema.Model)]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_every_key_is_documented(model):
    missing = [key for key in model.model_fields if not re.search(rf"`{key}`", DOCUMENT)]
    assert not missing


def test_document_names_the_version():
    assert f"Version {schema.SCHEMA_VERSION}." in DOCUMENT


DIGESTS = {
    2: "ee396366e15dc98c",
    3: "de3ef10e6c95ccd2",
    4: "fc9b93229f1c7081",
    5: "9311a91d491b70e2",
    6: "beb0f1b8beb0de75",
    7: "6e7a1e57f4bce021",
}
"""Of the schema of each version. A changed schema needs a new number in `schema.SCHEMA_VERSION`, a row in the
document's table of versions and a digest here; the digests of versions that were published never change."""


def test_a_changed_schema_needs_a_new_number():
    described = json.dumps(sorted(keys_and_types(Path(schema.__file__).read_text())))
    assert hashlib.sha256(described.encode()).hexdigest()[:16] == DIGESTS[schema.SCHEMA_VERSION]


def keys_and_types(source):
    """Each key with its type and default, and what each named type means, as the source has it."""
    for node in ast.parse(source).body:
        statements = node.body if isinstance(node, ast.ClassDef) else [node]
        for statement in statements:
            if isinstance(statement, ast.Assign | ast.AnnAssign):
                owner = getattr(node, "name", "")
                yield owner, "".join(ast.get_source_segment(source, statement).split())


def test_every_version_has_its_row_of_what_changed():
    for version in schema.READABLE_VERSIONS:
        assert re.search(rf"^\| {version} \| ", DOCUMENT, re.MULTILINE)


def test_every_column_of_the_table_is_documented_with_its_type():
    table = DOCUMENT[DOCUMENT.index("## The table of samples") :]
    documented = {}
    for names, dtype in re.findall(r"^\| (`[^|]*`) \| (string|U?Int64|Float64|boolean) \|", table, re.MULTILINE):
        documented |= dict.fromkeys(re.findall(r"`(\w+)`", names), dtype)
    assert documented == frame.COLUMNS
