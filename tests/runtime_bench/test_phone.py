"""What phones say of themselves: as several makers write it, and as those write it that do not want to tell."""

import subprocess

import pytest

from runtime_bench.devices import phone
from runtime_bench.devices.phone import measure_energy, read_phone
from runtime_bench.record import Phone
from runtime_bench.report import phones
from tests.runtime_bench.test_changes import RESULT

BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: {usb}
  Wireless powered: false
  Max charging current: 500000
  Charge counter: {charge}
  status: 3
  health: 2
  present: true
  level: 21
  scale: 25
  voltage: {voltage}
  temperature: 326
  technology: Li-ion
"""
THERMAL = """IsStatusOverride: false
ThermalEventListeners:
	callbacks: 1
Thermal Status: 2
Cached temperatures:
	Temperature{mValue=99.0, mType=0, mName=CPU0, mStatus=0}
HAL Ready: true
HAL connection:
	ThermalHAL 2.0 connected: yes
Current temperatures from HAL:
	Temperature{mValue=62.500004, mType=0, mName=CPU0, mStatus=2}
	Temperature{mValue=31.25, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
	Temperature{mValue=0.0, mType=2, mName=SUBBAT, mStatus=0}
	Temperature{mValue=NaN, mType=1, mName=GPU, mStatus=0}
	Temperature{mValue=72.0, mType=8, mName=soc, mStatus=0}
Current cooling devices from HAL:
	CoolingDevice{mValue=3, mType=2, mName=cpufreq-cpu0}
Temperature static thresholds from HAL:
	TemperatureThreshold{mType=0, mName=CPU0, mHotThrottlingThresholds=[NaN, 95.0]}
"""
PROPERTIES = {"ro.product.manufacturer": "Acme", "ro.product.model": "P 1", "ro.soc.model": "S9", "ro.build.version.release": "14"}
RAILS = "t=349894\nCH0(T=349894)[S1M_VDD_CPUCL2], {}\nCH1(T=349894)[VSYS_PWR_MODEM], 7\n"


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A shell on this machine with a phone's commands, and with the files of ``tmp_path`` for the kernel's."""
    monkeypatch.setattr(phone, "SYS", str(tmp_path))
    answers = {"battery": BATTERY.format(usb="false", charge=2_000_000, voltage=3850), "thermalservice": THERMAL} | PROPERTIES

    def run(command: str) -> str:
        for name, text in answers.items():
            (tmp_path / f"answer-{name}").write_text(text)
        functions = f'dumpsys() {{ cat "{tmp_path}/answer-$1"; }}; getprop() {{ cat "{tmp_path}/answer-$1"; }}; '
        finished = subprocess.run(["sh", "-c", functions + command], capture_output=True, text=True)
        assert (finished.returncode, finished.stderr) == (0, "")
        return finished.stdout

    run.answers = answers
    return run


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_phone_that_tells_everything(shell, tmp_path):
    write(tmp_path / "devices/system/cpu/cpufreq/policy0/scaling_governor", "schedutil\n")
    write(tmp_path / "devices/system/cpu/cpufreq/policy4/scaling_governor", "performance\n")
    write(tmp_path / "class/power_supply/battery/current_now", "-412000\n")
    write(tmp_path / "class/thermal/thermal_zone0/type", "cpu-0-0\n")
    write(tmp_path / "class/thermal/thermal_zone0/temp", "44100\n")
    write(tmp_path / "bus/iio/devices/iio:device0/energy_value", RAILS.format(761330))
    assert read_phone(shell) == Phone(
        model="Acme P 1",
        soc="S9",
        system="Android 14",
        governors={"policy0": "schedutil", "policy4": "performance"},
        temperatures_c={"CPU0": 62.500004, "VIRTUAL-SKIN": 31.25},
        thermal_status=2,
        battery_percent=84,
        battery_c=32.6,
        battery_mv=3850,
        charge_uah=2_000_000,
        current_ua=-412000,
        charging=False,
        rails_uj={"S1M_VDD_CPUCL2": 761330, "VSYS_PWR_MODEM": 7},
    )


def test_zones_are_read_where_there_is_no_thermal_service(shell, tmp_path):
    shell.answers["thermalservice"] = "Can't find service: thermalservice\n"
    for number, (kind, value) in enumerate({"cpu-0-0": "44100", "gone": "0", "absurd": "-274000", "words": "n/a"}.items()):
        write(tmp_path / f"class/thermal/thermal_zone{number}/type", kind)
        write(tmp_path / f"class/thermal/thermal_zone{number}/temp", value)
    told = read_phone(shell)
    assert told.temperatures_c == {"cpu-0-0": 44.1}
    assert told.thermal_status is None


def test_a_phone_that_tells_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(phone, "SYS", str(tmp_path))

    def shell(command: str) -> str:
        return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout

    silent = read_phone(shell)
    assert silent == Phone(None, None, None, {}, {}, None, None, None, None, None, None, None, {})
    assert measure_energy(silent, silent, 60) is None


@pytest.mark.parametrize(
    "text", ["Battery state:\n  (UPDATES STOPPED -- use 'reset' to restart)\n  level: 5\n  scale: 100\n", "  present: false\n  level: 5\n"]
)
def test_a_battery_that_is_made_up_is_not_believed(shell, text):
    shell.answers["battery"] = text
    told = read_phone(shell)
    assert (told.battery_percent, told.charging, told.charge_uah) == (None, None, None)


def states(shell, *changes) -> list[Phone]:
    told = []
    for change in changes:
        values = {"usb": "false", "charge": 2_000_000, "voltage": 4000} | change
        shell.answers["battery"] = BATTERY.format(**values)
        told.append(read_phone(shell))
    return told


def test_energy_by_the_charge_counter(shell):
    energy = measure_energy(*states(shell, {"voltage": 4100}, {"charge": 1_999_000, "voltage": 3900}), 100)
    assert (energy.source, energy.runs) == ("charge counter", 100)
    assert energy.joules == pytest.approx(1e-3 * 3600 * 4.0)  # 1 mAh at 4 V


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {}),  # less than it counts
        ({"usb": "true"}, {"charge": 1_999_000}),
        ({}, {"charge": 1_999_000, "usb": "true"}),
        ({}, {"charge": 2_001_000}),
        ({"charge": 0}, {"charge": 0}),
        ({"voltage": 4}, {"charge": 1_999_000, "voltage": 4}),
    ],
)
def test_energy_that_cannot_be_known_is_not_made_up(shell, before, after):
    assert measure_energy(*states(shell, before, after), 100) is None


def test_energy_by_power_rails_even_on_a_charger(shell, tmp_path):
    rails = tmp_path / "bus/iio/devices/iio:device0/energy_value"
    write(rails, RAILS.format(1_000_000))
    (before,) = states(shell, {"usb": "true"})
    write(rails, RAILS.format(3_500_000))
    (after,) = states(shell, {"usb": "true"})
    energy = measure_energy(before, after, 10)
    assert (energy.source, energy.joules) == ("power rails", 2.5)
    assert measure_energy(after, before, 10) is None  # it was started anew


def test_results_without_phones_have_no_table_of_them():
    assert phones([RESULT]) is None
