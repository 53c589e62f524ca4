import codecs
import json
import math
import os

import pytest
from pydantic import ValidationError
from scipy import stats

from resnet_bench import schema
from resnet_bench.errors import UserError
from resnet_bench.intervals import wilson_interval
from resnet_bench.results import reading
from resnet_bench.schema import Interval, ParametersResult

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
    path = saved(tmp_path / "a.json", [{"theirs": 1}, PARAMETERS.model_dump(mode="json"), {}, {"kind": "theirs"}])
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
        ('{"kind": "accuracy", "machine": null}', "does not say which machine"),
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


PYPERF = {
    "benchmarks": [{"metadata": {"name": "bench"}, "runs": [{"values": [0.1], "metadata": {"date": "2026-01-01"}}]}],
    "metadata": {"python_version": "3.12.0", "unit": "second"},
    "version": "1.0",
}
PYTEST_BENCHMARK = {
    "machine_info": {"node": "x", "cpu": {"count": 2}},
    "benchmarks": [{"name": "test_a", "extra_info": {}, "stats": {}}, {"name": "test_b", "extra_info": {"kind": "io"}}],
    "datetime": "2026-01-01T00:00:00",
    "version": "5.3.1",
}
GOOGLE_BENCHMARK = {"context": {"num_cpus": 2}, "benchmarks": [{"name": "BM_a", "real_time": 1.0, "time_unit": "ns"}]}
ASV = {"commit_hash": "0", "params": {"machine": "x"}, "results": {"time_a": [[0.1]]}, "version": 2}
HYPERFINE = {"results": [{"command": "sleep 1", "mean": 1.0}]}
WITH_A_KIND = {"kind": "List", "machine": {"name": "x"}, "items": []}


@pytest.mark.parametrize("data", [PYPERF, PYTEST_BENCHMARK, GOOGLE_BENCHMARK, ASV, HYPERFINE, WITH_A_KIND])
def test_files_of_other_suites_are_named_so(tmp_path, data):
    """Not by what they would lack if they were this suite's."""
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(data))
    with pytest.raises(UserError) as error:
        reading.read(path)
    assert str(error.value) == f"{path} holds no results of resnet_bench; give a file that this suite saved."


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "1" + 400 * "0"])
@pytest.mark.parametrize("place", ["machine", "result"])
def test_a_number_that_nobody_measured_is_refused(tmp_path, place, number):
    """Readers of the machine's description and of the recipe would fail one by one."""
    entry, machine = PARAMETERS.model_dump(mode="json"), {"cpu": {"caches": [1, 2]}}
    (entry if place == "result" else machine)["more"] = {"deep": ["HERE"]}
    path = saved(tmp_path / "a.json", [entry], machine=machine)
    path.write_text(path.read_text().replace('"HERE"', number))
    with pytest.raises(UserError, match=r"a\.json holds the number .{1,12}, which nobody measured"):
        reading.read(path)


def test_no_text_of_a_file_can_command_a_terminal_or_break_a_page(tmp_path):
    """Nor half of a surrogate pair; ends of lines and letters of any script stay."""
    machine = {"cpu": {"model": "a\x1b[2Jb\x07\x9b\ud800\n\tKäfer 猫"}}
    path = saved(tmp_path / "a.json", [PARAMETERS.model_dump(mode="json")], machine=machine)
    assert reading.read(path).machine == {"cpu": {"model": "a�[2Jb���\n\tKäfer 猫"}}


def test_the_largest_seed_is_read(tmp_path):
    entry = {**PARAMETERS.model_dump(mode="json")}
    path = saved(tmp_path / "a.json", [entry], machine={"seed": 2**64 - 1, "small": -(2**63)})
    assert reading.read(path).machine["seed"] == 2**64 - 1


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),  # what a redirection in PowerShell makes
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-16-le", b""),
        ("utf-32-le", codecs.BOM_UTF32_LE),
    ],
)
def test_every_unicode_encoding_is_read(tmp_path, encoding, mark):
    """With the line ends that come with it."""
    path = saved(tmp_path / "a.json", [PARAMETERS.model_dump(mode="json")], machine={"cpu": {"model": "Käfer"}})
    text = json.dumps(json.loads(path.read_text()), ensure_ascii=False, indent=1).replace("\n", "\r\n")
    path.write_bytes(mark + text.encode(encoding))
    file = reading.read(path)
    assert file.results == (PARAMETERS,)
    assert file.machine == {"cpu": {"model": "Käfer"}}


@pytest.mark.parametrize(
    "content", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, b'\xff\xfe{\x00"', b"\x1f\x8b\x08\x00", b"\xe4"]
)
def test_what_is_no_text_is_one_sentence(tmp_path, content):
    """A byte order mark and nothing else, a file cut within a character, gzip, Latin-1."""
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.json is no JSON or was cut off"):
        reading.read(path)


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="needs /dev/fd")
def test_a_pipe_is_read(tmp_path):
    """As of a shell's `<(unzip -p results.zip)`."""
    path = saved(tmp_path / "a.json", [PARAMETERS.model_dump(mode="json")])
    out, into = os.pipe()
    os.write(into, path.read_bytes())
    os.close(into)
    assert reading.read(f"/dev/fd/{out}").results == (PARAMETERS,)
    os.close(out)


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
    with pytest.raises(UserError, match=r"does not follow the schema at .*parameters|which nobody measured"):
        reading.read(path)


@pytest.mark.parametrize("value", [1e308, -1e308])
def test_an_interval_stays_finite_in_other_units(value):
    with pytest.raises(ValidationError):
        Interval(estimate=0, low=min(value, 0), high=max(value, 0), method="x")


def test_other_schema_versions_are_refused_by_name(tmp_path):
    path = saved(tmp_path / "a.json", [{**PARAMETERS.model_dump(mode="json"), "schema_version": 99}])
    with pytest.raises(UserError, match="has schema version 99, this release reads versions 1, 2, 3"):
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
