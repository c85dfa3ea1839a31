"""A kernel's cycles from the text of its schedule."""

from nasnet_jax.preflight import bundles

# In the compiler's form: 1 bundle, then a grid of 3 with 3 bundles of its own
# and two loops inside, of 8 turns of 2 bundles and of 5 turns of 1.
SCHEDULE = """\
LB: loop body
= control target key end

     0   :  { %s1 = smov 0 }
   0x1 LB: > { %s4 = sadd.s32 4294967295, %s3 /* iteration index, stage = 1 */ }
   0x2 LB: >> { %p8 = scmp.ge.s32.totalorder %s7, 8 /* loop exit test */ }
   0x3   : >> { %v1 = vadd.f32 %v2, %v3 }
   0x4 PF: > { %s9 = smov 0 }
   0x5 LB: >> { %p9 = scmp.ge.s32.totalorder %s8, 5 /* loop exit test */ }
   0x6   : > { %p2 = scmp.ge.s32.totalorder %s3, 5 /* loop exit test */ }
"""
SLOTS = """\
== CAPACITY:
MXU, VALU
    4     4
== UTILIZATION:
0 0
0 0
0 2
0 4
0 0
1 0
0 0
"""


def test_a_bundle_counts_as_often_as_its_loops_turn():
  assert bundles.issues(SCHEDULE) == [1, 3, 24, 24, 3, 15, 3]


def test_turns_of_the_grid_that_leave_out_its_loops_do_not_count():
  assert bundles.issues(SCHEDULE, idle=1) == [1, 3, 16, 16, 3, 10, 3]


def test_a_folder_is_read_by_the_names_of_its_kernels(tmp_path):
  for number, name in enumerate(("TLP", "separable_3x3_forward.1")):
    stem = f"17960{number}-{name}"
    (tmp_path / f"{stem}-72-final_bundles.txt").write_text(SCHEDULE)
    (
      tmp_path / f"{stem}-70-final_hlo-static-per-bundle-utilization.txt"
    ).write_text(SLOTS)
  (found,) = bundles.read(tmp_path.iterdir()).items()
  name, kernel = found
  assert name == "separable_3x3_forward.1"
  assert kernel.cycles == 73
  used = (15 * 1, 24 * 2 + 24 * 4)
  assert kernel.slots == {
    unit: round(slots / (4 * 73), 3)
    for unit, slots in zip(("MXU", "VALU"), used, strict=True)
  }
