"""The processor's name, by which records of one machine are told from those of another."""

import pytest

from runtime_bench import roofline


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("model name\t: Some CPU\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", "Some CPU, AVX-512 VNNI"),
        ("model name\t: Some CPU\nflags\t\t: fpu avx2 avx512f\n", "Some CPU, AVX-512"),
        ("model name\t: Some CPU\nflags\t\t: fpu avx2\n", "Some CPU, AVX2"),
        ("model name\t: Some CPU\nflags\t\t: fpu\n", "Some CPU"),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\n", "aarch64, dot products"),
    ],
)
def test_processors_of_one_name_are_told_apart(cpuinfo, name, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(roofline, "Path", lambda _: tmp_path / "cpuinfo")
    monkeypatch.setattr(roofline.platform, "processor", lambda: "")
    monkeypatch.setattr(roofline.platform, "machine", lambda: "aarch64")
    assert roofline.processor() == name
