"""Costs read from the text of a compiled program, on small texts by hand."""

import numpy as np
import pytest

from nasnet_jax.population import switches
from nasnet_jax.preflight import collectives, costs, hlo, profile, words

# One byte of HBM per second, one FLOP per second, one byte over the links.
UNIT = costs.Limits(1.0, 1.0, 1.0)

LOOP = """HloModule loop, is_scheduled=true

%body (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %y = f32[8,128]{1,0:T(8,128)} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  ROOT %t = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%i, %y)
}

%condition (q: (s32[], f32[8,128])) -> pred[] {
  %q = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  %n = s32[]{:T(128)} constant(STOP)
  ROOT %lt = pred[]{:T(512)} compare(%j, BOUND), direction=LT
}

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %zero = s32[]{:T(128)} constant(2)
  %start = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%zero, %a)
  %w = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  ROOT %out = f32[8,128]{1,0:T(8,128)} get-tuple-element(%w), index=1
}
"""  # noqa: E501
DOT = 2 * 8 * 128 * 128  # FLOPs


def _total(text, **options):
  return costs.Walk(hlo.parse(text), UNIT, **options).total()


@pytest.mark.parametrize("stop", [3, 12])
def test_a_loops_body_counts_as_often_as_it_runs(stop):
  text = LOOP.replace("STOP", str(stop)).replace("BOUND", "%n")
  assert _total(text).flops == (stop - 2) * DOT


def test_a_loop_whose_length_is_data_takes_the_length_it_is_told():
  text = LOOP.replace("STOP", "9").replace("BOUND", "%j")
  text = text.replace("constant(2)", "parameter(1)")
  walk = costs.Walk(hlo.parse(text), UNIT, trips=2.5)
  assert walk.total().flops == 2.5 * DOT
  assert walk.unknown_loops == ["w"]


def test_a_loop_of_a_branch_turns_as_often_as_the_branch_is_taken():
  text = LOOP.replace("STOP", "9").replace("BOUND", "%j")
  text = text.replace("constant(2)", "parameter(1)")
  name = switches.scope(1, 3, 4)
  text = text.replace(
    "body=%body", f'body=%body, metadata={{op_name="jit(f)/{name}/while"}}'
  )
  shares = {4: np.array([0.5, 0.25, 0.125, 0.125])}
  walk = costs.Walk(hlo.parse(text), UNIT, shares=shares, trips=2.5)
  assert walk.total().flops == 0.375 * DOT
  assert walk.unknown_loops == []


SWITCH = """HloModule switch, is_scheduled=true

%small (p: f32[8,128]) -> f32[8,128] {
  ROOT %p = f32[8,128]{1,0:T(8,128)} parameter(0)
}

%large (q: f32[8,128]) -> f32[8,128] {
  %q = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %y = f32[8,128]{1,0:T(8,128)} dot(%q, %q), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}

ENTRY %main (i: s32[], a: f32[8,128]) -> f32[8,128] {
  %i = s32[]{:T(128)} parameter(0)
  %a = f32[8,128]{1,0:T(8,128)} parameter(1)
  ROOT %c = f32[8,128]{1,0:T(8,128)} conditional(%i, %a, %a, %a), branch_computations={%small, %large, %small}
}
"""  # noqa: E501


def test_a_switch_inside_of_such_a_loop_takes_the_branches_of_its_scope():
  name = switches.scope(1, 3, 5)  # of three branches the last is for nobody
  text = SWITCH.replace(
    "%large, %small}", f'%large, %small}}, metadata={{op_name="{name}/cond"}}'
  )
  shares = {5: np.array([0.5, 0.3, 0.1, 0.05, 0.05])}
  assert _total(text, shares=shares).flops == pytest.approx(0.25 * DOT)


def test_a_switch_costs_what_its_branches_do_by_how_often_each_is_taken():
  assert _total(SWITCH).flops == DOT  # the dearest, if nothing is known
  shares = {3: np.array([0.5, 0.25, 0.25])}
  assert _total(SWITCH, shares=shares).flops == 0.25 * DOT


# A loop of three trips around a switch, whose large branch has two instructions
# of one kind; the compiler's estimates are 7 and 50 cycles.
NESTED = """HloModule nested, is_scheduled=true

%small (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %n = f32[8,128]{1,0:T(8,128)} negate(%p), backend_config={"estimated_cycles":"50"}
}

%large (q: f32[8,128]) -> f32[8,128] {
  %q = f32[8,128]{1,0:T(8,128)} parameter(0)
  %y = f32[8,128]{1,0:T(8,128)} exponential(%q), metadata={op_name="jit(f)/exp"}, backend_config={"estimated_cycles":"7"}
  ROOT %z = f32[8,128]{1,0:T(8,128)} exponential(%y), metadata={op_name="jit(f)/exp"}, backend_config={"estimated_cycles":"7"}
}

%body (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %c = f32[8,128]{1,0:T(8,128)} conditional(%i, %x, %x, %x), branch_computations={%small, %large, %small}
  ROOT %t = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%i, %c)
}

%condition (q: (s32[], f32[8,128])) -> pred[] {
  %q = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  %n = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[]{:T(512)} compare(%j, %n), direction=LT
}

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %zero = s32[]{:T(128)} constant(2)
  %start = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%zero, %a)
  %w = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  ROOT %out = f32[8,128]{1,0:T(8,128)} get-tuple-element(%w), index=1
}
"""  # noqa: E501


def test_instructions_are_listed_by_cycles_times_how_often_they_run():
  shares = {3: np.array([0.1, 0.75, 0.15])}
  walk = costs.Walk(hlo.parse(NESTED), UNIT, shares)
  found = profile.instructions(walk)
  assert [
    (row.opcode, row.instructions, row.runs, row.cycles) for row in found
  ] == [
    ("negate", 1, pytest.approx(0.75), pytest.approx(37.5)),
    ("exponential", 2, pytest.approx(4.5), pytest.approx(31.5)),
  ]
  assert (found[1].shape, found[1].made_by) == ("f32[8,128]", "jit(f)/exp")
  total = walk.total()
  assert sum(row.cycles for row in found) == pytest.approx(total.cycles)
  assert sum(row.runs for row in found) == pytest.approx(total.instructions)
  assert sum(row.bytes for row in found) == pytest.approx(total.bytes)


def test_of_a_switch_that_nothing_is_known_of_the_dearest_branch_is_listed():
  found = profile.instructions(costs.Walk(hlo.parse(NESTED), UNIT))
  # Equal by the roofline in bytes per instruction, so two take longer than one.
  assert [(row.opcode, row.runs) for row in found] == [("exponential", 6.0)]


def test_the_page_lists_instructions_with_their_share():
  rows = [
    row._asdict()
    for row in profile.instructions(costs.Walk(hlo.parse(NESTED), UNIT))
  ]
  text = "\n".join(words._top({"top": rows, "cycles": 84.0}))
  assert "42 50.0%       6       2  exponential f32[8,128] jit(f)/exp" in text
  assert "together 50% of 84" in text
  for row in rows:  # a compiler that estimates nothing
    row["cycles"] = 0.0
  text = "\n".join(words._top({"top": rows, "roofline_seconds": 1e5}))
  assert "seconds per update (roofline)" in text


def _program(*lines, parameters="a: f32[8,32]"):
  body = "\n".join(f"  {line}" for line in lines)
  return (
    f"HloModule m\n\nENTRY %main ({parameters}) -> f32[8,32] {{\n{body}\n}}"
  )


def test_padding_to_tiles_counts_and_on_chip_memory_does_not():
  text = _program(
    "%a = f32[8,32]{1,0:T(8,128)} parameter(0)",
    "%b = f32[8,32]{1,0:T(8,128)S(1)} copy(%a)",
    "ROOT %c = f32[8,32]{0,1:T(8,128)} copy(%b)",
  )
  first = 8 * 128 * 4  # 32 columns become 128
  second = 32 * 128 * 4  # laid out the other way 8 become 128
  assert _total(text).bytes == first + second


def test_a_slice_reads_what_it_takes_and_an_update_writes_what_it_changes():
  text = _program(
    "%a = f32[64,8,128]{2,1,0:T(8,128)} parameter(0)",
    "%i = s32[]{:T(128)S(6)} parameter(1)",
    "%s = f32[1,8,128]{2,1,0:T(8,128)S(1)} dynamic-slice(%a, %i, %i, %i)",
    "ROOT %u = f32[64,8,128]{2,1,0:T(8,128)} dynamic-update-slice"
    "(%a, %s, %i, %i, %i)",
  )
  assert _total(text).bytes == 2 * 8 * 128 * 4


CONV = (
  "%x = f32[2,5,5,3]{3,2,1,0:T(8,128)} parameter(0)",
  "%k = f32[3,3,3,4]{3,2,1,0:T(8,128)} parameter(1)",
  "ROOT %y = f32[2,5,5,4]{3,2,1,0:T(8,128)} convolution(%x, %k),"
  " window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f",
)


def test_a_slice_that_others_do_not_wait_for_reads_what_it_takes():
  text = _program(
    "%a = f32[5,8,128]{2,1,0:T(8,128)} parameter(0)",
    "%s = ((f32[5,8,128]{2,1,0:T(8,128)}), f32[2,8,128]{2,1,0:T(8,128)S(1)},"
    " s32[]{:S(2)}) slice-start(%a), slice={[0:2], [0:8], [0:128]}",
    "ROOT %d = f32[2,8,128]{2,1,0:T(8,128)S(1)} slice-done(%s)",
    parameters="a: f32[5,8,128]",
  )
  assert _total(text).bytes == 2 * 8 * 128 * 4


def test_windows_over_the_border_count_no_flops():
  inside = (5 * 3 - 2) ** 2  # of the 15 x 15 pairs of pixel and offset
  assert _total(_program(*CONV)).flops == 2 * inside * 2 * 3 * 4


def test_dilated_inputs_zeros_count_no_flops():
  """The gradient of a stride of 2: every second row is made of zeros."""
  x, k, y = CONV
  y = y.replace("pad=1_1x1_1", "pad=1_1x1_1 lhs_dilate=2x2")
  y = y.replace("[2,5,5,4]", "[2,9,9,4]")
  pairs = 13  # of one axis: 5 pixels meet 3 offsets, but for two at the ends
  assert _total(_program(x, k, y)).flops == 2 * pairs**2 * 2 * 3 * 4


def _exchange(kind, groups, shape="f32[8,128]"):
  return _program(
    "%a = f32[8,128]{1,0:T(8,128)} parameter(0)",
    f"ROOT %r = {shape}{{1,0:T(8,128)}} {kind}(%a), {groups}",
  )


@pytest.mark.parametrize(
  ("kind", "share"), [("all-reduce", 2), ("reduce-scatter", 1)]
)
def test_a_ring_sends_what_it_must(kind, share):
  text = _exchange(kind, "replica_groups={{0,1,2,3}}")
  (found,) = _total(text).listed()
  assert found.kind == kind
  assert found.bytes == 4096
  assert found.sent == share * 4096 * 3 / 4


def test_an_exchange_that_goes_on_beside_others_counts_where_it_starts():
  groups = 'replica_groups={{0,1}}, frontend_attributes={chain_id="0"}'
  goes_on = _exchange("all-reduce", groups)
  assert _total(goes_on).listed() == []
  starts = goes_on.replace(
    "  ROOT %r",
    "  %s = s32[]{:S(2)} custom-call(),"
    ' custom_call_target="AsyncCollectiveStart"'
    "\n  ROOT %r",
  )
  assert len(_total(starts).listed()) == 1


@pytest.mark.parametrize(
  ("groups", "axis"),
  [
    ("replica_groups={{0,1},{2,3}}", "data"),
    ("replica_groups=[2,2]<=[4]", "data"),
    ("replica_groups=[2,2]<=[2,2]T(1,0)", "arch"),
    ("replica_groups={{0,1,2,3}}", "arch and data"),
    ("replica_groups={{0,3},{1,2}}", "part of the mesh"),
  ],
)
def test_groups_of_an_exchange_are_named_by_their_axis(groups, axis):
  (found,) = _total(_exchange("all-reduce", groups)).listed()
  assert collectives.axis_of(found.groups, {"arch": 2, "data": 2}) == axis


def test_the_roofline_takes_the_longest_of_flops_bytes_and_links():
  text = LOOP.replace("STOP", "3").replace("BOUND", "%n")
  fast = costs.Limits(1e30, 1.0, 1.0)
  moved = 3 * 8 * 128 * 4  # the operand twice, and the output
  assert costs.Walk(hlo.parse(text), fast).total().seconds == moved
  assert costs.Walk(hlo.parse(text), UNIT).total().seconds == DOT


def test_a_text_without_a_program_is_refused():
  with pytest.raises(ValueError, match="no program"):
    hlo.parse("")


KERNEL = """HloModule kernel, is_scheduled=true

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %k = f32[8,128]{1,0:T(8,128)} custom-call(%a), custom_call_target="tpu_custom_call", backend_config={"estimated_cycles":"7"}
}
"""  # noqa: E501


def test_a_kernel_of_our_own_is_named_and_left_out():
  walk = costs.Walk(hlo.parse(KERNEL), UNIT)
  assert (walk.total().cycles, walk.uncounted) == (0, ["k"])
  # Other calls count as the compiler says.
  walk = costs.Walk(hlo.parse(KERNEL.replace("tpu_custom_call", "Sort")), UNIT)
  assert (walk.total().cycles, walk.uncounted) == (7, [])
