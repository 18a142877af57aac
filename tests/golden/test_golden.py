"""The vectors that other languages replay are what Python computes now."""

from tests.golden.make_golden import FOLDER, VECTORS, same, stale


def test_the_committed_vectors_are_up_to_date():
    assert not list(stale()), "run: make golden"


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
