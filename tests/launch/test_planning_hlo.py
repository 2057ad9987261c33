"""Collectives read from literal HLO text, as the TPU compiler writes it."""

import pytest

from launch.planning.hlo import collectives

LOOP = """HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (p: (s32[], bf16[2,8])) -> (s32[], bf16[2,8]) {
  %p = (s32[]{:T(128)}, bf16[2,8]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = bf16[2,8]{1,0:T(8,128)(2,1)} get-tuple-element(%p), index=1
  %gathered = bf16[2,32]{1,0:T(8,128)(2,1)S(1)} all-gather(%x), channel_id=1, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={1}, metadata={op_name="jit(step)/layers/mlp/dot_general"}
  %slice = bf16[2,8]{1,0} slice(%gathered), slice={[0:2], [0:8]}
  %two = s32[]{:T(128)} constant(2)
  %next = s32[]{:T(128)} add(%i, %two)
  ROOT %out = (s32[]{:T(128)}, bf16[2,8]{1,0}) tuple(%next, %slice)
}

%cond (q: (s32[], bf16[2,8])) -> pred[] {
  %q = (s32[]{:T(128)}, bf16[2,8]{1,0}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  %end = s32[]{:T(128)} constant(32)
  ROOT %less = pred[]{:T(512)} compare(%j, %end), direction=LT
}

ENTRY %main (a: bf16[2,8], b: f32[4,4]) -> f32[4,4] {
  %a = bf16[2,8]{1,0} parameter(0)
  %b = f32[4,4]{1,0} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, /*index=1*/bf16[2,8]{1,0}) tuple(%zero, %a)
  %loop = (s32[]{:T(128)}, bf16[2,8]{1,0}) while(%start), condition=%cond, body=%body
  ROOT %summed = f32[4,4]{1,0:T(4,128)} all-reduce(%b), channel_id=2, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}, to_apply=%add
}
"""  # noqa: E501


def test_a_loop_counts_as_often_as_it_runs_also_where_the_compiler_unrolled_it():
    found = collectives(LOOP)
    (gather,) = found.of("all-gather")
    assert (gather.times, gather.group, gather.bytes, gather.shape) == (16, 4, 128, (("bf16", (2, 32)),))
    assert gather.where == "jit(step)/layers/mlp/dot_general"
    assert gather.sent == 16 * 128 * 3 / 4
    assert found.unknown_loops == ()


def test_an_all_reduce_sends_twice_its_size_less_the_own_share():
    (reduce,) = collectives(LOOP).of("all-reduce")
    assert (reduce.times, reduce.group, reduce.bytes) == (1, 2, 64)
    assert reduce.sent == 2 * 64 / 2


def test_a_known_trip_count_goes_first():
    told = LOOP.replace("body=%body\n", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}\n')
    assert collectives(told).of("all-gather")[0].times == 7


def test_a_bound_that_the_loop_is_given_is_found_and_one_of_two_conditions_suffices():
    given = LOOP.replace("%end = s32[]{:T(128)} constant(32)", "%end = s32[]{:T(128)} get-tuple-element(%q), index=1")
    given = given.replace("ROOT %less =", "%less =").replace(
        "direction=LT\n}",
        "direction=LT\n  %more = pred[] fusion(%q), kind=kLoop, calls=%add\n  ROOT %both = pred[] and(%less, %more)\n}",
    )
    given = given.replace("tuple(%zero, %a)", "tuple(%zero, %ten)").replace(
        "  %zero = s32[]{:T(128)} constant(0)", "  %zero = s32[]{:T(128)} constant(0)\n  %ten = s32[] constant(10)"
    )
    assert collectives(given).of("all-gather")[0].times == 5


def test_a_loop_without_a_bound_counts_once_and_is_named():
    endless = LOOP.replace("compare(%j, %end), direction=LT", "compare(%j, %end), direction=NE")
    endless = endless.replace("body=%body\n", 'body=%body, metadata={op_name="jit(step)/while"}\n')
    found = collectives(endless)
    assert found.unknown_loops == ("jit(step)/while",)
    assert found.of("all-gather")[0].times == 1


PIECES = """HloModule jit_step

%piece.1 (p: bf16[8]) -> bf16[32] {
  %p = bf16[8]{0} parameter(0)
  ROOT %g.1 = bf16[32]{0} all-gather(%p), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={0}, frontend_attributes={chain_id="3"}
}

%piece.2 (q: bf16[8]) -> bf16[32] {
  %q = bf16[8]{0} parameter(0)
  ROOT %g.2 = bf16[32]{0} all-gather(%q), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={0}, frontend_attributes={chain_id="3"}
}

%all-reduce-scatter.1 (r: f32[16,8]) -> f32[2,8] {
  %r = f32[16,8]{1,0} parameter(0)
  %sum = f32[16,8]{1,0} all-reduce(%r), channel_id=8, replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %own = f32[2,8]{1,0} dynamic-slice(%sum), dynamic_slice_sizes={2,8}
}

ENTRY %main (a: bf16[8], b: f32[16,8]) -> f32[2,8] {
  %a = bf16[8]{0} parameter(0)
  %b = f32[16,8]{1,0} parameter(1)
  %one = bf16[32]{0} fusion(%a), kind=kCustom, calls=%piece.1
  %two = bf16[32]{0} fusion(%a), kind=kCustom, calls=%piece.2
  %sent = (bf16[1,4]{1,0}, bf16[1,4]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%a), channel_id=9, source_target_pairs={{0,2},{2,0}}
  %received = bf16[1,4]{1,0} collective-permute-done(%sent)
  %parts = (f32[16,8]{1,0}, f32[16,8]{1,0}) all-to-all(%b, %b), channel_id=10, replica_groups={{0,1}}
  %part = f32[2,8]{1,0} reduce-scatter(%b), channel_id=11, replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add
  ROOT %scattered = f32[2,8]{1,0} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.1
}
"""  # noqa: E501


def test_pieces_of_one_collective_are_one():
    (gather,) = collectives(PIECES).of("all-gather")
    assert (gather.times, gather.group, gather.bytes) == (1, 4, 64)


def test_start_and_done_are_one_and_only_data_counts():
    (permute,) = collectives(PIECES).of("collective-permute")
    assert (permute.bytes, permute.sent) == (8, 8.0)


def test_a_reduce_scatter_has_the_size_of_what_goes_in_however_it_is_written():
    found = collectives(PIECES)
    assert [c.bytes for c in found.of("reduce-scatter")] == [512, 512]
    assert found.of("all-reduce") == ()
    assert found.of("all-to-all")[0].bytes == 1024
    assert found.sent == 48 + 8 + 2 * 448 + 512


@pytest.mark.parametrize(
    ("shape", "logits"),
    [
        ("bf16[64,128]", False),  # the unembedding, D = 64 and V = 128
        ("bf16[1,128,64]", False),  # the embedding
        ("f32[2,16,128]", True),
        ("f32[32,128]", True),
        ("f32[2,16,64]", False),
    ],
)
def test_gathered_logits_are_told_from_gathered_weights(shape, logits):
    text = LOOP.replace("bf16[2,32]{1,0:T(8,128)(2,1)S(1)} all-gather", f"{shape}{{0}} all-gather")
    assert bool(collectives(text).gathered_logits(vocab_size=128, hidden_size=64)) is logits


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        collectives("HloModule nothing")
