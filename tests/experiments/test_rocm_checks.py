"""What a compiled program's text tells, and what is refused in it. Making one needs the wheels: `make rocm-aot`."""

import dataclasses

import pytest

from experiments.rocm import by_hand, checks, hlo
from experiments.rocm.figures import Figures
from experiments.rocm.programs import CONFIG, KERNELS, PROGRAMS, Program

CODE = r'ir = "ML\EFR f32[9,9,9] \" name = \"no\"", name = "cca_mix", num_stages = 1 : i32'
HLO = f"""
%fused (p: f32[]) -> f32[4096,17] {{
  ROOT %a = f32[4096,17]{{1,0}} broadcast(%p), metadata={{op_name="jit(f)/Zaya/while/body/experts/div"}}
}}
  %k.1 = (bf16[1,4096,1024]{{2,1,0}}, bf16[1,4096,256]{{2,1,0}}) custom-call(%x, %y), \
custom_call_target="__gpu$xla.gpu.triton", \
operand_layout_constraints={{bf16[1,4096,1280]{{2,1,0}}, f32[], s32[49]{{0}}}}, api_version=API_VERSION_TYPED_FFI, \
metadata={{op_name="jit(f)/attention/cca_mix/pallas_call"}}, backend_config={{grid_x = 49 : i32, {CODE}}}
  %g.1 = (f32[8,8]{{1,0}}, s8[256]{{0}}) custom-call(%x, %w), custom_call_target="__cublas$lt$matmul"
  %f = bf16[2,3]{{1,0}} fusion(%x), backend_config={{"config":{{"kind":"__triton_nested_gemm_fusion"}}}}
  %s = bf16[2,3]{{1,0}} fusion(%x), backend_config={{"config":{{"kind":"__triton"}}}}
  %ag = (bf16[256]{{0}}, bf16[2048]{{0}}) all-gather-start(%x), channel_id=1
  %agd = bf16[2048]{{0}} all-gather-done(%ag)
  %rs = f32[8]{{0}} reduce-scatter(%x), channel_id=2
"""


def test_the_text_is_read():
    shapes = ((1, 4096, 1280), (), (49,))
    assert hlo.kernels(HLO) == [hlo.Kernel("cca_mix", shapes)]
    assert hlo.library_calls(HLO) == {"__cublas$lt$matmul": 1}
    assert hlo.products(HLO) == 1
    assert hlo.collectives(HLO) == {"all-gather": 1, "reduce-scatter": 1}
    found = set(hlo.arrays(HLO))
    assert hlo.Array((4096, 17), "jit(f)/Zaya/while/body/experts/div") in found
    assert hlo.Array((2, 3), "") in found
    assert not any(array.shape == (9, 9, 9) for array in found)


def line(*shape: int, scope: str = "jit(f)/Zaya") -> str:
    sizes = ",".join(map(str, shape))
    return f'  %x = bf16[{sizes}]{{0}} add(%a, %b), metadata={{op_name="{scope}"}}\n'


LONG, SHORT = PROGRAMS["prefill_1x32768"], PROGRAMS["train_1x4096"]
SHARDED = PROGRAMS["prefill_8x4096_on_8"]


@pytest.mark.parametrize(
    "program, shape, bad",
    [
        (LONG, (16, 32768, 2048), True),
        (LONG, (32768, 16, 2048), True),
        (LONG, (2, 16, 32768, 4096), True),
        (LONG, (40, 16, 4096, 2048), False),  # weights
        (LONG, (16, 2048, 2048), False),
        (LONG, (32768, 17), False),
        (LONG, (32768, 2048), False),
        (SHORT, (16, 4096, 2048), False),  # weights, or not: shapes do not tell
        (SHORT, (16, 4096, 4096), True),
        (SHARDED, (16, 32768, 2048), True),  # of all devices
        (PROGRAMS["decode_64_cache_8192"], (16, 64, 2048), True),
        (PROGRAMS["decode_1_cache_8192"], (16, 1, 2048), False),
    ],
)
def test_arrays_of_experts_tokens_and_width_are_found(program, shape, bad):
    assert checks.dispatched(CONFIG, program, line(*shape)) == ({shape} if bad else set())


@pytest.mark.parametrize(
    "program, shape, scope, bad",
    [
        (LONG, (1, 8, 32768, 32768), "", True),
        (LONG, (32768, 32768), "", True),
        (LONG, (1, 2048, 1024), "", False),  # blocks that may see each other
        (SHORT, (8, 4096, 4096), "", True),
        (SHORT, (4096, 4096), "jit(f)/experts/mul", False),  # gate and up
        (SHORT, (4096, 4096), "jit(f)/attention/mul", True),
        (PROGRAMS["decode_64_cache_8192"], (64, 8, 1, 8192), "", False),
    ],
)
def test_arrays_of_queries_and_keys_are_found(program, shape, scope, bad):
    assert checks.scores(CONFIG, program, line(*shape, scope=scope)) == ({shape} if bad else set())


@pytest.mark.parametrize(
    "program, shape, bad",
    [
        (SHARDED, (8, 4096, 1280), True),
        (SHARDED, (32768, 2048), True),
        (SHARDED, (1, 4096, 8, 128), False),
        (PROGRAMS["decode_64_cache_8192_on_8"], (1, 64, 1280), True),
        (PROGRAMS["decode_64_cache_8192_on_8"], (8, 8192, 2, 128), False),
        (PROGRAMS["decode_64_cache_8192"], (64, 2048), False),  # one device: its own
    ],
)
def test_kernels_that_read_the_whole_batch_are_found(program, shape, bad):
    found = checks.whole_batches(program, [hlo.Kernel("attention", ((3,), shape))])
    assert found == ([f"kernel attention reads the whole batch: {list(shape)}"] if bad else [])


LAYER = PROGRAMS["experts_1x32768_float32"]
COUNTED = 2_685_567_040  # inputs, outputs and residuals of 32,768 tokens with float32 weights
FINE = Figures(1.0, 1, 1, 1, 0, COUNTED, dict.fromkeys(checks.EXPECTED["experts"], 1), {}, 0, {})


def test_the_expert_layer_by_hand():
    """The numbers are the sizes of the arrays of `programs._experts`, written out."""
    matrices = 16 * 4096 * 2048 + 16 * 2048 * 2048
    wide = 32768 * 2048
    found = by_hand.expert_layer(CONFIG, 32768, params=4)
    assert found.inputs == 4 * matrices + 2 * wide + 4 * 32768 + 4 * 32768 + 4 * wide
    assert found.outputs == 4 * wide + 4 * matrices + 2 * wide + 4 * 32768
    assert found.residuals == 2 * wide + 2 * wide + 4 * 32768 + 2 * 4 * 32768 + 4 * 16
    assert sum(found) == sum(checks.counted(CONFIG, LAYER))
    assert found.inputs - by_hand.expert_layer(CONFIG, 32768, params=2).inputs == 2 * matrices


def test_nothing_is_wrong_with_a_fine_program():
    assert checks.problems(CONFIG, LAYER, FINE, "", 10**12) == []


def test_what_is_wrong_is_said():
    hand = sum(checks.counted(CONFIG, LAYER))
    over = dataclasses.replace(FINE, peak=int(1.31 * hand))
    assert checks.problems(CONFIG, LAYER, over, "", 10**12) == [
        "the expert layer takes 1.31 times the bytes counted by hand, at most 1.3"
    ]
    assert "needs" in checks.problems(CONFIG, LAYER, FINE, "", 10)[0]
    without = dataclasses.replace(FINE, kernels={k: 1 for k in FINE.kernels if k != "grouped_matmul_d_rhs"})
    assert checks.problems(CONFIG, LAYER, without, "", 10**12) == ["kernel grouped_matmul_d_rhs is missing"]
    text = line(16, 32768, 2048)
    assert checks.problems(CONFIG, LAYER, FINE, text, 10**12) == [
        "an array of experts x tokens x width: [16, 32768, 2048]"
    ]


def test_programs_are_what_was_asked_for():
    assert set(KERNELS.values()) == {"pallas"}
    assert all(p.rows % p.devices == 0 for p in PROGRAMS.values())
    assert Program("decode", 64, cache=8192, devices=8).name == "decode_64_cache_8192_on_8"
    assert Program("decode", 64, cache=8192, devices=8).local_rows == 8
