"""The vectors that other languages replay are what Python computes now."""

import msgspec

from runtime_bench.record import Result
from tests.golden.make_golden import FOLDER, VECTORS, same, stale


def test_the_committed_vectors_are_up_to_date():
    assert not list(stale()), "run: make golden"


def test_an_apps_record_is_read_as_one_of_ours():
    text = msgspec.json.encode(msgspec.json.decode((FOLDER / "record.json").read_bytes())["records"])
    (result,) = msgspec.json.decode(text, type=list[Result])
    assert (result.latency_ms.median, result.drift) == (11.875, None)


def test_no_vector_is_left_of_an_earlier_version_and_the_folder_is_small():
    files = list(FOLDER.glob("*.json"))
    assert {path.name for path in files} == set(VECTORS)
    assert sum(path.stat().st_size for path in files) < 500_000


def test_the_comparison_forgives_last_bits_only():
    assert same({"a": [1.0, "NaN"]}, {"a": [1.0 + 1e-9, "NaN"]})
    assert not same([1.0], [1.00001])
    assert not same([1], [2])
    assert not same([1], [1, 1])
    assert not same({"a": 1}, {"b": 1})
