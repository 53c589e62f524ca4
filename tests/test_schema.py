import json
import math

import pytest
from pydantic import ValidationError
from scipy import stats

from resnet_bench import schema
from resnet_bench.errors import UserError
from resnet_bench.intervals import wilson_interval
from resnet_bench.schema import Interval, ParametersResult, reading

PARAMETERS = ParametersResult(
    process="0123456789abcdef",
    started_at="2026-01-02T03:04:05+00:00",
    architecture="fc1",
    parameters=10,
    num_classes=100,
    fc_parameters=5,
    multiply_accumulates=7,
    published_parameters=None,
)


def saved(path, entries, machine=None):
    data = {
        "machine_info": {"resnet_bench": machine or {"cpu": {"model": "X"}}},
        "benchmarks": [{"extra_info": e, "stats": {}} for e in entries],
        "datetime": "2026-01-01T00:00:00",
    }
    path.write_text(json.dumps(data))
    return path


def test_reads_back_what_it_wrote(tmp_path):
    """A result survives the way through pytest-benchmark's JSON unchanged."""
    path = saved(tmp_path / "a.json", [PARAMETERS.model_dump(mode="json")])
    file = reading.read(path)
    assert file.results == (PARAMETERS,)
    assert file.machine == {"cpu": {"model": "X"}}
    assert file.of_kind(ParametersResult) == [PARAMETERS]


def test_other_projects_benchmarks_are_passed_over(tmp_path):
    path = saved(tmp_path / "a.json", [{"theirs": 1}, PARAMETERS.model_dump(mode="json"), {}])
    assert reading.read(path).results == (PARAMETERS,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON or was cut off"),
        ('{"benchmarks": [{"extra', "is no JSON or was cut off"),
        ("[" * 100_000, "is no JSON or was cut off"),
        ("[]", "holds no results of resnet_bench"),
        ("{}", "holds no results of resnet_bench"),
        ('{"benchmarks": []}', "holds no results of resnet_bench"),
        ('{"benchmarks": [{"extra_info": {"other": 1}}]}', "holds no results of resnet_bench"),
        ('{"benchmarks": [{"extra_info": {"kind": "parameters"}}]}', "does not say which machine"),
    ],
)
def test_foreign_and_truncated_files(tmp_path, text, message):
    """Each gets one sentence that names the file."""
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        reading.read(path)
    assert "bad.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"no file .*gone\.json"):
        reading.read(tmp_path / "gone.json")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match="Cannot read"):
        reading.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"parameters": -1}, "parameters"),
        ({"parameters": "10"}, "parameters"),
        ({"parameters": True}, "parameters"),
        ({"surprise": 1}, "surprise"),
        ({"kind": "unheard-of"}, "result"),
    ],
)
def test_results_that_break_the_schema(tmp_path, change, where):
    """The sentence says at which key."""
    path = saved(tmp_path / "a.json", [{**PARAMETERS.model_dump(mode="json"), **change}])
    with pytest.raises(UserError, match=f"does not follow the schema at .*{where}"):
        reading.read(path)


MODELS = [m for m in vars(schema).values() if isinstance(m, type) and issubclass(m, schema.Model)]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_every_count_is_bounded(model):
    """A float holds it exactly, so nothing that reads results has to think of overflow. A seed is no count."""
    for key, described in model.model_json_schema().get("properties", {}).items():
        for kind in (described, *described.get("anyOf", ())):
            if kind.get("type") == "integer" and not {"const", "enum"} & kind.keys() and key != "seed":
                assert kind.get("maximum") == 10**15, key


@pytest.mark.parametrize("value", [10**15 + 1, 10**400])
def test_a_count_beyond_floating_point_is_refused(tmp_path, value):
    path = saved(tmp_path / "a.json", [{**PARAMETERS.model_dump(mode="json"), "parameters": value}])
    with pytest.raises(UserError, match=r"does not follow the schema at .*parameters"):
        reading.read(path)


@pytest.mark.parametrize("value", [1e308, -1e308])
def test_an_interval_stays_finite_in_other_units(value):
    with pytest.raises(ValidationError):
        Interval(estimate=0, low=min(value, 0), high=max(value, 0), method="x")


def test_other_schema_versions_are_refused_by_name(tmp_path):
    path = saved(tmp_path / "a.json", [{**PARAMETERS.model_dump(mode="json"), "schema_version": 99}])
    with pytest.raises(UserError, match="has schema version 99, this release reads versions 1 and 2"):
        reading.read(path)


def test_nan_and_infinity_are_no_results():
    for value in (math.nan, math.inf):
        with pytest.raises(ValidationError):
            Interval(estimate=value, low=0, high=1, method="x")


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (361, 1000), (1, 3)])
def test_wilson_interval_is_wilsons_formula(successes, trials):
    """Against the closed form of the score interval."""
    z = stats.norm.ppf(0.975)
    p = successes / trials
    center = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    interval = wilson_interval(successes, trials)
    assert interval.estimate == p
    assert interval.low == pytest.approx(max(0.0, center - half), abs=1e-12)
    assert interval.high == pytest.approx(min(1.0, center + half), abs=1e-12)
