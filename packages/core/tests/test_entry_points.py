"""Entry points are found as importlib.metadata finds them, without its import."""

from __future__ import annotations

from importlib.metadata import distributions
from pathlib import Path

from pysandbox_core.entry_points import GROUPS, HOOKS, PLATFORMS, EntryPoint, scan


def publish(directory: Path, distribution: str, text: str) -> None:
    metadata = directory / f"{distribution}.dist-info"
    metadata.mkdir(parents=True)
    name, _, version = distribution.partition("-")
    (metadata / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(text)


def test_as_importlib_metadata_finds_them(tmp_path: Path) -> None:
    publish(tmp_path, "a-1", "[pysandbox.platforms]\nfast = a.b:C\n\n[console_scripts]\nx = y:z\n")
    publish(tmp_path, "b-2", "# a comment\n[pysandbox.hooks]\nlog=b\ntwo = b.c : d.e [extra]\n")
    found = scan([str(tmp_path)])
    assert found[PLATFORMS] == [EntryPoint("fast", "a.b", "C", "a-1")]
    assert found[HOOKS] == [
        EntryPoint("log", "b", "", "b-2"),
        EntryPoint("two", "b.c", "d.e", "b-2"),
    ]
    theirs = {
        (entry.group, entry.name, entry.module, entry.attr or "")
        for distribution in distributions(path=[str(tmp_path)])
        for entry in distribution.entry_points
        if entry.group in GROUPS
    }
    ours = {(g, entry.name, entry.module, entry.attribute) for g in GROUPS for entry in found[g]}
    assert ours == theirs


def test_the_first_distribution_of_a_name_hides_the_others(tmp_path: Path) -> None:
    publish(tmp_path / "one", "a-1", "[pysandbox.platforms]\nx = one:X\n")
    publish(tmp_path / "two", "a-2", "[pysandbox.platforms]\nx = two:X\n")
    found = scan([str(tmp_path / "one"), str(tmp_path / "two")])
    assert [entry.module for entry in found[PLATFORMS]] == ["one"]


def test_what_can_not_be_read_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "c-1.dist-info").mkdir()
    publish(tmp_path, "d-1", "[pysandbox.platforms]\n= nothing\nno equals sign\nok = d:D\n")
    found = scan([str(tmp_path / "missing"), str(tmp_path)])
    assert [entry.name for entry in found[PLATFORMS] if entry.name] == ["ok"]


def test_load() -> None:
    assert EntryPoint("x", "os", "path.join", "d-1").load() is __import__("os").path.join
