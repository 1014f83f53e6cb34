"""Stand-ins for ROCm are made of what tools tell of an object. Loading them needs the wheels: `make rocm-aot`."""

import ctypes
import shutil
import subprocess

import pytest

from experiments.rocm import stand_ins
from experiments.rocm.stand_ins import HIP, Symbol
from zaya_jax.errors import UserError

NM = """
                 w __gmon_start__
                 U malloc@GLIBC_2.2.5
                 U hipGetDeviceCount@hip_4.2
                 U hipGetErrorString
                 U hipGetErrorString@hip_4.2
                 U miopenCreate@MIOPEN_HIP_1
                 U ncclGetVersion
                 U __hipRegisterFatBinary@hip_4.2
                 U rocblas_get_version_string
                 U _ZN13hipblaslt_ext10GemmInputs4setAEPKv
                 U _ZNK13hipblaslt_ext15GemmProblemType6getOpAEv
                 U _ZNSt6vectorI3hipE3fooEv
                 U hypot
"""
READELF_D = """
 0x000000000000001d (RUNPATH)            Library runpath: [$ORIGIN/../rocm/lib]
 0x0000000000000001 (NEEDED)             Shared library: [libMIOpen.so.1]
 0x0000000000000001 (NEEDED)             Shared library: [librccl.so.1]
 0x0000000000000001 (NEEDED)             Shared library: [libamdhip64.so.7]
 0x0000000000000001 (NEEDED)             Shared library: [libm.so.6]
"""
READELF_V = """
Version needs section '.gnu.version_r' contains 3 entries:
  000000: Version: 1  File: libamdhip64.so.7  Cnt: 1
  0x0010:   Name: hip_4.2  Flags: none  Version: 34
  0x0020: Version: 1  File: libMIOpen.so.1  Cnt: 1
  0x0030:   Name: MIOPEN_HIP_1  Flags: none  Version: 5
"""
FILES = {"hip_4.2": HIP, "MIOPEN_HIP_1": "libMIOpen.so.1"}


def test_only_symbols_of_rocm_are_stood_in_for():
    names = {symbol.name for symbol in stand_ins.undefined(NM)}
    assert "malloc" not in names and "hypot" not in names and "__gmon_start__" not in names
    assert not any(name.startswith("_ZNSt") for name in names)
    assert Symbol("miopenCreate", "MIOPEN_HIP_1") in stand_ins.undefined(NM)
    assert {"_ZN13hipblaslt_ext10GemmInputs4setAEPKv", "_ZNK13hipblaslt_ext15GemmProblemType6getOpAEv"} <= names


def test_libraries_and_versions_are_read():
    assert stand_ins.needed(READELF_D) == {"libMIOpen.so.1", "librccl.so.1", HIP}
    assert stand_ins.version_files(READELF_V) == FILES


def test_every_symbol_has_one_home():
    symbols = stand_ins.undefined(NM)
    hip = stand_ins.exports(symbols, FILES, HIP)
    assert stand_ins.exports(symbols, FILES, "libMIOpen.so.1") == {"MIOPEN_HIP_1": ["miopenCreate"]}
    assert stand_ins.exports(symbols, FILES, "librccl.so.1") == {}
    assert hip["hip_4.2"] == ["__hipRegisterFatBinary", "hipGetDeviceCount", "hipGetErrorString"]
    assert "ncclGetVersion" in hip[""] and "hipGetErrorString" not in hip[""]
    script = stand_ins.version_script(hip)
    assert script == "hip_4.2 { global: __hipRegisterFatBinary; hipGetDeviceCount; hipGetErrorString; };"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_they_answer_that_there_is_no_device(tmp_path):
    names = sorted({symbol.name for symbol in stand_ins.undefined(NM)})
    (tmp_path / "code.c").write_text(stand_ins.source(names))
    library = tmp_path / "library.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", library, tmp_path / "code.c"], check=True)
    loaded, count = ctypes.CDLL(str(library)), ctypes.c_int(7)
    assert loaded.hipGetDeviceCount(ctypes.byref(count)) == 100 and count.value == 0
    assert loaded.miopenCreate() == 100
    loaded.hipGetErrorString.restype = ctypes.c_char_p
    assert loaded.hipGetErrorString(100) == b"stand-in"


def test_without_the_wheels_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(stand_ins.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"XLA:ROCm is not installed; .*make rocm-aot"):
        stand_ins.build()


def test_without_a_compiler_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(stand_ins, "plugin", lambda: tmp_path / "a/b/plugin.so")
    monkeypatch.setattr(stand_ins.importlib.metadata, "version", lambda name: "0.0")
    monkeypatch.setattr(stand_ins.shutil, "which", lambda tool: None if tool == "gcc" else tool)
    with pytest.raises(UserError, match=r"found gcc; install it"):
        stand_ins.build(tmp_path / "cache")
