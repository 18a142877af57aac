"""What an Android phone says of itself: temperatures, battery, governors, and what its meters have counted.

Everything is read as the shell may read it, without root, in one command. Which of it a phone gives differs by maker and release: what it
does not give, or what cannot be true, is ``None`` or left out. Sources: the framework's services ``battery`` and ``thermalservice`` (from
Android 10 on), the kernel's ``thermal``, ``cpufreq`` and ``power_supply`` classes, and the power rails' energy meters of Pixels.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from runtime_bench.record import Energy, Latency, Phone, PhoneRun

SYS = "/sys"
_TEMPERATURES = {0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13}
"""Types of the thermal service that are degrees; others are voltages, currents and percentages, or anything."""
_PLAUSIBLE_C = (-40, 150)


def read_phone(shell: Callable[[str], str]) -> Phone:
    """A phone at this moment.

    Args:
        shell: runs a command there and gives its stdout.
    """
    texts = _sections(shell(_script()))
    properties = dict(_pairs(texts["properties"]))
    names = [properties.get(name) for name in ("ro.product.manufacturer", "ro.product.model")]
    release = properties.get("ro.build.version.release")
    return Phone(
        model=" ".join(filter(None, names)) or None,
        soc=properties.get("ro.soc.model") or properties.get("ro.board.platform"),
        system=f"Android {release}" if release else None,
        governors=dict(_pairs(texts["governors"])),
        temperatures_c=_service_temperatures(texts["thermal"]) or _zone_temperatures(texts["zones"]),
        thermal_status=_number(re.search(r"Thermal Status: (\d+)", texts["thermal"])),
        rails_uj=_rails(texts["rails"]),
        current_ua=_number(re.fullmatch(r"\s*(-?\d+)\s*", texts["current"])),
        **_battery(texts["battery"]),
    )


def measure_energy(before: Phone, after: Phone, runs: int) -> Energy | None:
    """What a phone as a whole has used between two moments; ``None`` where it has no meter, charges, or used less than it can tell.

    Args:
        before, after: the moments.
        runs: of the network between them.
    """
    shared = before.rails_uj.keys() & after.rails_uj.keys()
    rails = {name: after.rails_uj[name] - before.rails_uj[name] for name in shared}
    if rails and min(rails.values()) >= 0 and sum(rails.values()) > 0:  # meters start anew with the phone
        return Energy("power rails", 1e-6 * sum(rails.values()), runs)
    values = (before.charge_uah, after.charge_uah, before.battery_mv, after.battery_mv)
    if None in values or before.charging is not False or after.charging is not False or after.charge_uah >= before.charge_uah:
        return None
    volts = 1e-3 * (before.battery_mv + after.battery_mv) / 2
    return Energy("charge counter", 3600e-6 * (before.charge_uah - after.charge_uah) * volts, runs)


class _Measured(Protocol):
    """A ``Measurement`` or a ``Result``."""

    latency_ms: Latency | None
    phone: PhoneRun | None


class PhoneWatch:
    """Lets phones rest before something is measured on them, and asks them how they are, before and after.

    Args:
        cool_down_s: pause before something is measured on a phone that has done something for us.
    """

    def __init__(self, cool_down_s: float) -> None:
        self._cool_down_s, self._warm = cool_down_s, set[str]()

    def has_worked(self, name: str) -> None:
        """On something that is not measured."""
        self._warm.add(name)

    def rest(self, name: str, read: Callable[[], Phone | None], what: str) -> tuple[Phone | None, float]:
        """Wait if need be.

        Args:
            name: of the device.
            read: what it says of itself; ``None`` of what is no phone.
            what: is measured next, in words.

        Returns:
            What it says then, and the seconds that it was left alone.
        """
        phone = read()
        cool_down_s = self._cool_down_s if phone is not None and name in self._warm else 0.0
        if cool_down_s:
            print(f"{what}: {name} cools down for {cool_down_s:.0f} s ...", file=sys.stderr, flush=True)
            time.sleep(cool_down_s)
            phone = read()
        self._warm.add(name)
        return phone, cool_down_s

    def measure[M: _Measured](self, name: str, read: Callable[[], Phone | None], what: str, measure: Callable[[], M]) -> M:
        """What ``measure`` gives, with its ``phone``; the other arguments are those of :meth:`rest`."""
        before, cool_down_s = self.rest(name, read, what)
        start = time.monotonic()
        measured = measure()
        if before is None or measured.latency_ms is None:
            return measured
        seconds, after = time.monotonic() - start, read()
        runs = measured.latency_ms.runs + measured.latency_ms.processes * measured.latency_ms.warmup
        phone = PhoneRun(before, after, seconds, cool_down_s, measure_energy(before, after, runs))
        return msgspec.structs.replace(measured, phone=phone)


def _script() -> str:
    names = ("ro.product.manufacturer", "ro.product.model", "ro.soc.model", "ro.board.platform", "ro.build.version.release")
    zones, policies = f"{SYS}/class/thermal/thermal_zone*", f"{SYS}/devices/system/cpu/cpufreq/policy*"
    parts = {
        "properties": " ".join(f'echo "{name} $(getprop {name})";' for name in names),
        "battery": "dumpsys battery;",
        "thermal": "dumpsys thermalservice;",
        "zones": f'for zone in {zones}; do echo "$(cat $zone/type) $(cat $zone/temp)"; done;',
        "governors": f'for policy in {policies}; do echo "${{policy##*/}} $(cat $policy/scaling_governor)"; done;',
        "current": f"cat {SYS}/class/power_supply/battery/current_now;",
        "rails": f"cat {SYS}/bus/iio/devices/iio:device*/energy_value;",
    }
    return "{ " + " ".join(f"echo '[{name}]'; {commands}" for name, commands in parts.items()) + " } 2>/dev/null; true"


def _sections(said: str) -> dict[str, str]:
    parts = re.split(r"^\[(\w+)\]\r?$", said, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        if value:
            yield name, value.strip()


def _number(found: re.Match[str] | None) -> int | None:
    return int(found[1]) if found else None


def _battery(text: str) -> dict[str, float | int | bool | None]:
    """Fields of a :class:`runtime_bench.record.Phone`."""
    # "dumpsys battery set" makes it say whatever one likes.
    said = {} if "UPDATES STOPPED" in text else dict(re.findall(r"^\s*([\w ]+): (\S+)\s*$", text, flags=re.MULTILINE))
    if said.get("present") == "false":
        said = {}

    def whole(name: str) -> int | None:
        return _number(re.fullmatch(r"(-?\d+)", said.get(name, "")))

    level, scale, tenths, millivolts, charge = map(whole, ("level", "scale", "temperature", "voltage", "Charge counter"))
    powered = [value == "true" for name, value in said.items() if name.endswith(" powered")]
    return {
        "battery_percent": 100 * level / scale if level is not None and scale else None,
        "battery_c": tenths / 10 if tenths is not None else None,
        # Some say volts or microvolts here.
        "battery_mv": millivolts if millivolts and 2000 < millivolts < 20000 else None,
        "charge_uah": charge if charge and charge > 0 else None,
        "charging": any(powered) if powered else None,
    }


def _service_temperatures(text: str) -> dict[str, float]:
    current = text.partition("Current temperatures from HAL:")[2].partition("from HAL:")[0]
    found = re.findall(r"Temperature\{mValue=([-\d.]+), mType=(-?\d+), mName=([^,}]+)", current)
    return dict(_plausible((name, float(value)) for value, kind, name in found if int(kind) in _TEMPERATURES))


def _zone_temperatures(text: str) -> dict[str, float]:
    pairs = ((name, value) for name, value in _pairs(text) if re.fullmatch(r"-?\d+", value))
    return dict(_plausible((name, int(value) / 1000) for name, value in pairs))


def _plausible(readings: Iterator[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    """Without those of sensors that are not there: they say 0, or something absurd."""
    return ((name, value) for name, value in readings if value and _PLAUSIBLE_C[0] < value < _PLAUSIBLE_C[1])


def _rails(text: str) -> dict[str, int]:
    """Microjoules since the phone was started, by rail; lines such as ``CH3(T=358356)[S2M_VDD_CPUCL2], 761330``."""
    return {name: int(value) for name, value in re.findall(r"^CH\d+(?:\(T=\d+\))?\[([^\]]+)\], (\d+)", text, flags=re.MULTILINE)}
