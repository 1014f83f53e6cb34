"""`experiments.doctor`: every judgement with made-up machines, and this machine as it is."""

import importlib.metadata

import pytest

from tests.experiments.in_process import run
from tests.experiments.launching import launch
from zaya_jax.report import doctor, probes
from zaya_jax.report.findings import Finding

pytestmark = pytest.mark.usefixtures("quick_programs")

REQUIREMENTS = [
    "jax<0.12,>=0.10.2",
    "numpy>=2.4",
    'torch==2.13.0; extra == "parity"',
    'jax[cuda12]<0.12,>=0.10.2; extra == "cuda"',
]


@pytest.mark.parametrize(
    ("version", "level"), [((3, 11, 0), "OK"), ((3, 12, 9), "OK"), ((3, 10, 1), "FAIL"), ((3, 13, 0), "FAIL")]
)
def test_python(version, level):
    assert doctor.check_python(version).level == level


def levels(findings):
    return [finding.level for finding in findings]


@pytest.mark.parametrize(
    ("versions", "level", "text"),
    [
        ({"jax": "0.10.2", "numpy": "2.4.0"}, "OK", "jax 0.10.2, numpy 2.4.0"),
        ({"jax": "0.11.3.dev1", "numpy": "2.10"}, "OK", "numpy 2.10"),
        ({"jax": "0.10.1", "numpy": "2.4.6"}, "FAIL", "jax 0.10.1 is not >=0.10.2 -> pip install 'jax<0.12,>=0.10.2'"),
        ({"jax": "0.12", "numpy": "2.4.6"}, "WARN", "jax 0.12 is not <0.12"),
        ({"jax": "0.10.2", "numpy": None}, "FAIL", "numpy is missing -> pip install 'numpy>=2.4'"),
    ],
)
def test_packages(versions, level, text):
    (finding,) = doctor.check_packages(REQUIREMENTS, versions)
    assert finding.level == level and text in str(finding)


def test_the_metadata_of_this_package_is_understood():
    requirements = importlib.metadata.requires("zaya_jax")
    versions = dict.fromkeys(("jax", "flax", "optax"))
    found = doctor.check_packages(
        [line for line in requirements if line.startswith(("jax<", "flax", "optax"))], versions
    )
    assert levels(found) == ["FAIL"] * 3
    assert levels(doctor.check_packages([], {})) == ["WARN"]


@pytest.mark.parametrize(
    ("jax_version", "jaxlib", "level", "text"),
    [
        ("0.10.2", "0.10.2", "OK", "the tested one"),
        ("0.11.0", "0.11.0", "WARN", "tested is 0.10.2 -> run `make test`"),
        ("0.12.1", "0.12.1", "WARN", "tested is 0.10.2"),
        ("0.10.2", "0.10.1", "WARN", "install both in one version: pip install jax==0.10.2 jaxlib==0.10.2"),
    ],
)
def test_jax(jax_version, jaxlib, level, text):
    finding = doctor.check_jax({"jax": jax_version, "jaxlib": jaxlib})
    assert finding.level == level and text in words(finding)


def words(finding):
    return " ".join(str(finding).split())


@pytest.mark.parametrize(
    ("torch", "level", "text"),
    [
        ("2.13.0+cpu", "OK", "extra parity: torch 2.13.0+cpu"),
        (None, "OK", "extra parity is not installed (torch is missing); if you want it: pip install -e '.[parity]'"),
        ("2.12.1", "WARN", "torch 2.12.1 is not ==2.13.0 -> pip install -e '.[parity]'"),
    ],
)
def test_extras(torch, level, text):
    (finding,) = doctor.check_extras(REQUIREMENTS, {"torch": torch})
    assert finding.level == level and text in words(finding)


@pytest.mark.parametrize(
    ("arguments", "level", "text"),
    [
        (("cpu", "cpu", [("cpu", None)], []), "OK", "jax computes on 1 x cpu"),
        (
            ("gpu", "rocm 70201", [("AMD Instinct MI300X", 144 * 10**9)] * 8, ["rocm"]),
            "OK",
            "gpu (rocm 70201): 8 x AMD Instinct MI300X with 144 GB for jax",
        ),
        (("cpu", "cpu", [("cpu", None)], ["rocm"]), "WARN", "pip install -e '.[rocm]', and unset JAX_PLATFORMS"),
    ],
)
def test_backend(arguments, level, text):
    finding = doctor.check_backend(*arguments)
    assert finding.level == level and text in words(finding)


READY = {
    "XLA_FLAGS": "--xla_gpu_enable_latency_hiding_scheduler=true --xla_gpu_enable_command_buffer=",
    "GPU_MAX_HW_QUEUES": "2",
    "HIP_FORCE_DEV_KERNARG": "1",
    "HSA_NO_SCRATCH_RECLAIM": "1",
}


def test_rocm_as_it_should_be():
    assert levels(doctor.check_rocm(READY)) == ["OK"] * 4


@pytest.mark.parametrize(
    ("flags", "off"),
    [
        ("", False),
        ("--xla_gpu_enable_command_buffer=", True),
        ("--xla_gpu_enable_command_buffer=''", True),
        ("--xla_gpu_enable_command_buffer=FUSION,WHILE", False),
        ("--xla_gpu_enable_command_buffer= --xla_gpu_enable_command_buffer=WHILE", False),
        ("--xla_gpu_enable_command_buffer=WHILE --xla_gpu_enable_command_buffer=", True),
    ],
)
def test_command_buffers(flags, off):
    finding = doctor.check_rocm(READY | {"XLA_FLAGS": flags})[0]
    assert finding.level == ("OK" if off else "WARN")
    if not off:
        assert 'export XLA_FLAGS="$XLA_FLAGS --xla_gpu_enable_command_buffer="' in words(finding)


def test_rocm_settings_that_are_missing_or_other():
    texts = [words(finding) for finding in doctor.check_rocm({"GPU_MAX_HW_QUEUES": "4"})]
    assert levels(doctor.check_rocm({})) == ["WARN"] * 4
    assert "GPU_MAX_HW_QUEUES is 4;" in texts[1] and texts[1].endswith("-> export GPU_MAX_HW_QUEUES=2")
    assert "HIP_FORCE_DEV_KERNARG is not set;" in texts[2] and texts[3].endswith("-> export HSA_NO_SCRATCH_RECLAIM=1")


@pytest.mark.parametrize(
    ("environment", "level"),
    [
        ({}, "WARN"),
        ({"XLA_CLIENT_MEM_FRACTION": "0.9"}, "OK"),
        ({"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9"}, "OK"),
        ({"XLA_CLIENT_MEM_FRACTION": "0.9", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9"}, "FAIL"),
    ],
)
def test_gpu_memory(environment, level):
    assert doctor.check_gpu_memory(environment).level == level


@pytest.mark.parametrize(
    ("dtype", "error", "level", "text"),
    [
        ("float32", 1e-6, "OK", "float32 matrix product: 2.0 TFLOP/s, relative error 1.0e-06"),
        ("float32", 1e-3, "WARN", "rounded as in TF32 -> export JAX_DEFAULT_MATMUL_PRECISION=highest"),
        ("bfloat16", 1e-3, "WARN", "sums are rounded to bfloat16"),
        ("bfloat16", 0.5, "FAIL", "wrong -> check the driver"),
        ("float32", float("nan"), "FAIL", "wrong"),
    ],
)
def test_products(dtype, error, level, text):
    finding = doctor.check_product(dtype, error, 2e12)
    assert finding.level == level and text in words(finding)


def test_loops_sums_and_kernels():
    assert doctor.check_loop(3, 3).level == "OK" and doctor.check_loop(2, 3).level == "FAIL"
    assert doctor.check_sum([3, 3], 3).level == "OK" and doctor.check_sum([3, 2], 3).level == "FAIL"
    fine = doctor.check_kernels("cca_mix", {"xla": 1e-7, "pallas": None, "reference": 0.0})
    assert words(fine) == "OK cca_mix: xla, reference (not here: pallas)"
    for wrong in (0.1, float("nan")):
        finding = doctor.check_kernels("cca_mix", {"xla": wrong, "reference": 0.0})
        assert finding.level == "FAIL" and "cca_mix: xla differs from the reference by" in words(finding)


def test_the_compile_cache(tmp_path):
    assert words(doctor.check_compile_cache(str(tmp_path / "a"))).startswith("OK compiled programs are kept in")
    assert list((tmp_path / "a").iterdir()) == []
    (tmp_path / "file").touch()
    assert "File exists; compiled programs are not kept -> set" in words(
        doctor.check_compile_cache(str(tmp_path / "file"))
    )
    assert doctor.check_compile_cache("").level == "WARN"


def test_the_host():
    assert levels(doctor.check_host(2, 24 * 10**9, 20 * 10**9, 25e9)) == ["OK", "OK"]
    short, speed = doctor.check_host(2, 24 * 10**9, 10**9, 25e9)
    assert short.level == "WARN" and "ZAYA1-8B (17.7 GB in bfloat16)" in words(short)
    assert "25.0 GB/s" in words(speed)


def test_a_long_finding_is_broken_and_indented():
    lines = str(Finding("WARN", "word " * 30, "do this")).splitlines()
    assert len(lines) == 2 and lines[0].startswith("WARN  word") and lines[1].startswith("      word")


def test_probes_on_this_machine():
    result, expected = probes.loop()
    assert result == expected == 6400
    assert probes.sum_over_devices() == ([1.0] * len(probes.backend()[2]), 1.0)
    for operation in probes.OPERATIONS:
        differences = probes.kernel_differences(operation)
        assert differences["reference"] == 0 and differences["xla"] < 1e-5
    memory, available = probes.memory()
    assert 0 < available <= memory
    assert probes.cores() >= 1 and probes.copy_bandwidth(2**20) > 0


def test_a_missing_device_is_told(monkeypatch):
    def fails():
        raise RuntimeError("Unable to initialize backend 'rocm'")

    monkeypatch.setattr(probes, "backend", fails)
    *_, last = doctor.examine("")
    assert words(last).startswith(
        "FAIL jax finds no device: Unable to initialize backend 'rocm' -> check JAX_PLATFORMS"
    )


def test_exit_codes(monkeypatch):
    for level, code in (("OK", 0), ("WARN", 0), ("FAIL", 1)):
        monkeypatch.setattr(doctor, "examine", lambda _, level=level: iter([Finding(level, "a thing")]))
        found, out, err = run("doctor")
        assert (found, err) == (code, "") and out.startswith(f"{level:<6}a thing\n")


def test_the_launcher_with_several_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    code, out, err = launch("doctor")
    assert (code, err) == (0, ""), out
    assert "4 x cpu" in out and "OK    a sum over 4 devices" in out and ", 0 FAIL" in out
