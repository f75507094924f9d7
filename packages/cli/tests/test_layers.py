"""The jail's layers by name: `--require`, `--without`, the SDK's arguments, and what `pysandbox
doctor` and `--log-level info` say of them."""

from __future__ import annotations

import pytest
from command_line import pysandbox
from pysandbox import Sandbox
from pysandbox_core.choice import choose_platform
from pysandbox_core.errors import InvalidOptionError
from pysandbox_core.jail.layers import LAYERS, NAMES, parse_layers
from pysandbox_core.jail.trial import try_jail


@pytest.fixture(scope="module")
def off() -> frozenset[str]:
    """Layers that this host has not got."""
    trial = try_jail(choose_platform("auto"))
    assert not trial.failure
    return frozenset(trial.off)


def test_a_list_of_layers() -> None:
    assert parse_layers("") == frozenset()
    assert parse_layers("seccomp,userns") == {"seccomp", "userns"}
    assert parse_layers("all") == parse_layers("seccomp,all") == frozenset(NAMES)
    for wrong in ("sandbox", "seccomp,", "all,nothing", "Seccomp"):
        with pytest.raises(InvalidOptionError, match="unknown layer"):
            parse_layers(wrong)


def test_all_layers_that_are_on_can_be_required(off: frozenset[str]) -> None:
    required = ",".join(name for name in NAMES if name not in off)
    ended = pysandbox("run", "--require", required, "--", "/bin/echo", "in it")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"in it\n", b"")
    if off:
        assert pysandbox("run", "--require=all", "--", "/bin/true").returncode == 125


@pytest.mark.parametrize("layer", NAMES)
def test_each_layer_can_be_left_out_and_then_not_be_relied_on(layer: str) -> None:
    ended = pysandbox("run", f"--without={layer}", "--log-level=info", "--", "/bin/echo", "x")
    assert (ended.returncode, ended.stdout) == (0, b"x\n"), ended.stderr
    expected = f"pysandbox: layer {layer} of the jail is off: switched off"
    assert expected in ended.stderr.decode().splitlines()
    ended = pysandbox("run", f"--without={layer}", f"--require={layer}", "--", "/bin/true")
    assert ended.returncode == 125
    assert ended.stderr.decode() == (
        f"pysandbox: layer {layer} of the jail is both required and left out\n"
    )


def test_without_any_layer_it_still_runs() -> None:
    ended = pysandbox("run", "--without=all", "--", "/bin/sh", "-c", "echo $(id -u)")
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("option", ["--require", "--without"])
def test_an_unknown_layer_is_one_line(option: str) -> None:
    ended = pysandbox("run", option, "walls", "--", "/bin/true")
    assert ended.returncode == 125
    assert ended.stderr.decode() == (
        f"pysandbox: unknown layer 'walls'; the jail has {', '.join(NAMES)}, and `all`\n"
    )


def test_the_sdk_takes_the_same_names(off: frozenset[str]) -> None:
    required = [name for name in NAMES if name not in off]
    with Sandbox(require=required) as sandbox:
        assert sandbox.layers_off.keys() == off
        assert sandbox.run(["/bin/echo", "x"]).stdout == b"x\n"
    with Sandbox(without="landlock,undumpable") as sandbox:
        assert sandbox.layers_off.keys() == off | {"landlock", "undumpable"}
        assert sandbox.layers_off["landlock"] == "switched off"
    for wrong in ({"require": "walls"}, {"require": "all", "without": ["seccomp"]}):
        with pytest.raises(InvalidOptionError):
            Sandbox(**wrong)  # type: ignore[arg-type]


def test_the_doctor_has_a_line_for_every_layer(off: frozenset[str]) -> None:
    lines = pysandbox("doctor").stdout.decode().splitlines()
    found = {words[2]: words[0] for words in map(str.split, lines) if words[1:2] == ["layer"]}
    assert found == {name: "off" if name in off else "on" for name in NAMES}
    assert ("The jail is complete." in lines) == (not off)
    for layer in LAYERS:
        if layer.name not in off:
            assert any(line.endswith(layer.what) for line in lines)


def test_a_trial_without_a_platform(off: frozenset[str]) -> None:
    """Where no platform can be used, the layers are told all the same."""
    trial = try_jail(None)
    assert not trial.failure and trial.off.keys() == off
