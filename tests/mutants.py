"""One-line faults, each of which must turn a test of `make test` red.

python tests/mutants.py [--only=NAME] [--list] [--jobs=2]

Run it before and after tests or files change: a fault that stays green has lost
its test. Faults are put into copies of the checkout, never into itself. They
stand at the end: a name, the function of a test (in brackets what the names of
its cases have in them), and a diff. No file is named: they may move and split.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]


class Mutant(NamedTuple):
  """A fault: `old`, which the package has once, becomes `new`; see above."""

  name: str
  test: str
  case: str
  old: str
  new: str


def read() -> list[Mutant]:
  """The mutants of `MUTANTS`."""
  pattern = r"^(\S.*):\s+(\w+)(?: \[(.+)\])?\n((?:- .*\n)+)((?:\+ .*\n)+)"
  found = []
  for *words, old, new in re.findall(pattern, MUTANTS, re.MULTILINE):
    parts = ("\n".join(x[2:] for x in s.splitlines()) for s in (old, new))
    found.append(Mutant(*words, *parts))
  return found


def places(text: str) -> list[str]:
  """The package's files that have this text, each as often as it has it."""
  files = sorted(ROOT.glob("nasnet_jax/**/*.py"))
  found = [f for f in files for _ in range(f.read_text().count(text))]
  return [str(file.relative_to(ROOT)) for file in found]


def homes(test: str) -> list[str]:
  """The files that have a test of this name."""
  files = sorted(ROOT.glob("tests/**/test_*.py"))
  found = [file for file in files if f"\ndef {test}(" in file.read_text()]
  return [str(file.relative_to(ROOT)) for file in found]


def run(mutants: list[Mutant], fault: Mutant | None = None) -> tuple[int, str]:
  """(pytest's exit code, what it said) of their tests, in a copy."""
  files = {file for m in mutants for file in homes(m.test)}
  chosen = {f"({m.test} and {m.case})" if m.case else m.test for m in mutants}
  command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
  command += ["-m", "not slow", "-k", " or ".join(sorted(chosen))]
  left_out = shutil.ignore_patterns(".*", "__pycache__", "runs", "*.egg-info")
  cache = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax")}
  with tempfile.TemporaryDirectory(prefix="mutant") as folder:
    root = shutil.copytree(ROOT, f"{folder}/checkout", ignore=left_out)
    if fault:
      file = pathlib.Path(root, *places(fault.old))
      file.write_text(file.read_text().replace(fault.old, fault.new))
    done = subprocess.run(
      [*command, *sorted(files)],
      cwd=root,
      env=cache | os.environ | {"PYTHONPATH": root},
      capture_output=True,
      text=True,
    )
  return done.returncode, done.stdout + done.stderr


def try_out(mutant: Mutant) -> tuple[bool, str]:
  """(whether its test went red, a line about it)."""
  if len(places(mutant.old)) != 1:
    return False, f"?     {mutant.name}: its line is not there, or not once"
  start = time.monotonic()
  code, said = run([mutant], mutant)
  about = f"{mutant.name} ({mutant.test}, {time.monotonic() - start:.0f} s)"
  if code not in (0, 1):  # 1: tests failed; others: none ran
    return False, f"?     {about}: pytest gave {code}\n{said}"
  return code == 1, f"{('GREEN', 'red  ')[code]} {about}"


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--only", default="", help="faults with this in the name")
  parser.add_argument("--list", action="store_true", help="run none")
  parser.add_argument("--jobs", type=int, default=2, help="faults at a time")
  flags = parser.parse_args()
  mutants = [m for m in read() if flags.only in m.name]
  if flags.list:
    print(*(f"{m.name}: {m.test} {m.case}".strip() for m in mutants), sep="\n")
    return 0
  code, said = run(mutants)
  if code:
    print(f"{said}\nthe tests are red without a fault, or not there")
    return 1
  good = True
  with concurrent.futures.ThreadPoolExecutor(flags.jobs) as pool:
    for is_red, line in pool.map(try_out, mutants):
      print(line, flush=True)
      good &= is_red
  return not good


MUTANTS = r"""
an average counts padding: test_an_average_pool_does_not_count_the_padding [3-2]
- return ends - jnp.maximum(starts, 0)
+ return ends - starts
batch norm: half a gradient: test_batch_norm_and_its_gradient_equal_float64
- (g - each(mean_g) - xhat * each(mean_gx))
+ (g - each(mean_g))
examples meet: test_examples_never_meet_in_a_convolution
- return jnp.where(rows[:, None] == columns, tiled, 0)
+ return tiled
kept edges do not grow: test_a_mask_is_zero_or_the_inverse_and_its_mean_is_one
- return (kept / jnp.maximum(keep, 1e-6))[:, None, None, None]
+ return kept[:, None, None, None]
a bank's tail is not 0: test_a_child_starts_as_its_static_network_does [deep]
- value = jnp.where(inside, values[branch], 0.0).sum(1)
+ value = jnp.where(inside, values[branch], 0.1).sum(1)
a dropped edge learns:
  test_a_cell_of_few_operations_whose_edges_are_dropped_is_static
- g = folded.masked(g, mask, self.numerics.fold)
+ pass
only one reader teaches: test_an_output_of_one_state_is_passed_on_untouched
- dynamic_update_index_in_dim(stack, old + value, place, 0)
+ dynamic_update_index_in_dim(stack, value, place, 0)
a wider layer skips: test_a_row_of_blocks_is_the_static_network [pooled]
- return (chosen.branch, jnp.where(same, chosen.skip, 0)), width
+ return (chosen.branch, chosen.skip), width
a diverged child does not fail: test_a_child_whose_loss_is_nan_fails_alone
- if not np.isfinite(value):
+ if np.isinf(value):
no average: test_the_moving_average_is_what_is_evaluated
- params, batch_stats = state.ema or (state.params, state.batch_stats)
+ params, batch_stats = state.params, state.batch_stats
one part of a batch for all: test_devices_share_a_batch_and_change_nothing [2-2]
- start = jax.lax.axis_index("data") * size
+ start = 0 * size
no checksum: test_one_bit_in_a_large_array_is_noticed
- if checksum not in (_UNKNOWN, _checksum(flat)):
+ if False:
scales decay as kernels do: test_only_kernels_decay
- getattr(path[-1], "key", None) == "kernel", params
+ getattr(path[-1], "key", None) != "bias", params
warming up goes on beyond its end: test_warming_up_multiplies_by_a_ramp
- jnp.minimum(progress / share, 1.0) * schedule(progress)
+ (progress / share) * schedule(progress)
divided gradients are summed: test_divided_weights_change_nothing_but_rounding
- return lax.pmean(g, axis) if where == WHOLE else g / devices
+ return lax.pmean(g, axis) if where == WHOLE else g
weights stay gathered:
  test_the_step_gathers_weights_twice_and_never_their_gradients
- return primitive.name not in _AGAIN
+ return True
no fsync: test_a_full_disk_leaves_a_journal_that_goes_on
-     file.write(line)
-     file.flush()
-     os.fsync(file.fileno())
+     file.write(line)
+     file.flush()
answers are replayed in the order of ids:
  test_replaying_the_journal_rebuilds_the_state_bit_for_bit [evolution]
- chosen = np.array([place.pop(int(k)) for k in ids], np.int64)
+ chosen = np.array([place.pop(int(k)) for k in sorted(ids)], np.int64)
the best dies: test_told_one_at_a_time_it_is_the_loop_of_the_paper [True]
- slot = (born + row) % settings.population
+ slot = int(np.lexsort((-state.rewards, state.serial >= 0))[0])
PPO takes the maximum: test_loss_and_gradient_are_those_of_the_clipped_objective
- objective = jnp.minimum(
+ objective = jnp.maximum(
no twin sides: test_blocks_of_each_level_are_as_many_as_in_the_paper
- rows = rows[first @ side <= second @ side]
+ rows = rows[first @ side < second @ side]
the later is better: test_of_equal_children_at_a_rung_the_earlier_is_the_better
- better = sum(v >= value for v in before)
+ better = sum(v > value for v in before)
one seed: test_a_childs_seed_follows_from_the_searchs_seed_and_its_number
- sequence = np.random.SeedSequence([search_seed, child])
+ sequence = np.random.SeedSequence([search_seed])
cost is rewarded:
  test_twice_the_cost_for_5_percent_more_accuracy_changes_nothing
- return accuracy * (cost / target) ** (alpha if cost <= target else beta)
+ return accuracy * (target / cost) ** (alpha if cost <= target else beta)
the mean is not divided: test_whitening_is_per_channel
- shift = jnp.asarray(-np.asarray(aug.mean) / std, jnp.float32)
+ shift = jnp.asarray(-np.asarray(aug.mean), jnp.float32)
one order for all epochs: test_epochs_and_seeds_have_orders_of_their_own
- return jax.random.fold_in(jax.random.key(seed), epoch)
+ return jax.random.key(seed)
rows are cropped alike: test_every_row_of_every_step_is_cropped_by_itself
- raw = np.random.PCG64((seed, step, row)).random_raw(n)
+ raw = np.random.PCG64((seed, step, 0)).random_raw(n)
a box at the limit goes: test_suppression_is_that_of_plain_loops
- gone = (overlap > limit) | (jnp.arange(len(left)) == best)
+ gone = (overlap >= limit) | (jnp.arange(len(left)) == best)
pixels lie on corners: test_roi_align_is_that_of_plain_loops
- low, high = low / stride - 0.5, high / stride - 0.5
+ low, high = low / stride, high / stride
ONNX shifts backwards: test_onnx_computes_what_the_network_does [cells_0]
- return self._pad(node.name, x, _every_axis(0, 1))
+ return self._pad(node.name, x, _every_axis(1, 0))
Keras counts otherwise: test_our_weights_give_our_logits_in_keras
- after = int(number) >= num_cells
+ after = int(number) > num_cells
blocks are counted from the inputs: test_a_cell_reads_as_text
- return f"block {state - inputs}"
+ return f"block {state}"
an edge leads to the other side:
  test_an_edge_runs_from_its_state_to_its_side_and_never_down
-       box = boxes[f"block-{k}-side-{side}"]
+       box = boxes[f"block-{k}-side-{1 - side}"]
a loop's body counts once: test_a_loops_body_counts_as_often_as_it_runs
- return [(hlo.called(instruction, "body"), trips)]
+ return [(hlo.called(instruction, "body"), 1.0)]
sides of a block have an order: test_one_block_pnas_cells_are_136_of_256
- code = sides.min(-1) * np.int64(pairs) + sides.max(-1)
+ code = sides[..., 0] * np.int64(pairs) + sides[..., 1]
operations change sides: test_decisions_mean_what_their_names_say
- ops=table[..., 2:4],
+ ops=table[..., [3, 2]],
too narrow: test_channels_are_rounded_as_in_efficientnets_code
- return rounded + divisor if rounded < 0.9 * wanted else rounded
+ return rounded
the first calls are timed: test_a_latency_is_the_median_of_calls_after_a_warm_up
- return statistics.median(seconds[WARM_UP:])
+ return statistics.median(seconds)
no hint: test_a_wrong_command_is_one_line_with_the_nearest_right_one
- near = difflib.get_close_matches(name, COMMANDS, n=1)
+ near = difflib.get_close_matches(name, (), n=1)
versions are text: test_a_package_that_is_missing_or_too_old_stops_a_run
- if need.least and _numbers(version) < _numbers(need.least):
+ if need.least and version < need.least:
momentum forgets its mask:
  test_weights_outside_of_a_mask_stay_bit_for_bit_and_count_in_no_norm
- kept = [jnp.where(*row) for row in zip(*leaves, strict=True)]
+ kept = [row[1] for row in zip(*leaves, strict=True)]
an edge takes a bank of its other side:
  test_what_no_sampled_child_has_stays_bit_for_bit
- return genes.inputs * part.mix.num_operations + genes.ops
+ return genes.inputs[:, ::-1] * part.mix.num_operations + genes.ops
statistics behind an operation's own move:
  test_running_statistics_of_all_edges_are_those_of_each_module
- inside = jnp.arange(old.shape[-1]) < stop[..., None]
+ inside = jnp.arange(old.shape[-1]) <= stop[..., None]
children change the stack of the first:
  test_stacks_change_in_place_also_under_vmap_of_vmap
- first = numbers * stack.shape[1]
+ first = numbers * 0
weights that were read are trained from the start:
  test_a_stopped_search_goes_on_with_the_same_bits [fake]
- self._step = int(np.asarray(self.state.step))
+ self._step = 0
an edge that reads another state is kept:
  test_what_a_mutation_changed_is_new_and_all_else_is_the_parents [nasnet_c]
- return both & inputs & (parent.ops == child.ops)
+ return both & (parent.ops == child.ops)
the parent has the child's genes:
  test_a_mutant_goes_on_with_what_it_has_of_its_parent
- genotypes = final.genotype, genotype
+ genotypes = genotype, genotype
a parent is thrown away while its child trains:
  test_a_search_that_was_stopped_goes_on_with_the_same_bits [rounds]
- kept = (controller.parents(at.state), at.pending.parent, at.pending.id)
+ kept = (controller.parents(at.state),)
a climb names whom nothing is kept of:
  test_a_climb_to_what_was_answered_late_names_no_parent
- known_before = state.ids[best] < int(state.since)
+ known_before = False
the ends of a front have no room:
  test_ranks_and_room_are_those_of_the_definitions
- found = np.full(len(column), np.inf)
+ found = np.zeros(len(column))
a slice of a volume lacks its own point:
  test_the_volume_is_that_of_inclusion_and_exclusion
- float(thick[i]) * _volume(rows[: i + 1]) for i in np.flatnonzero(thick)
+ float(thick[i]) * _volume(rows[:i]) for i in np.flatnonzero(thick)
the knee waits for all ends:
  test_places_begin_with_the_best_the_knee_and_the_other_ends
- order = dict.fromkeys([ends[0], knee, *ends[1:], *rest])
+ order = dict.fromkeys([*ends, knee, *rest])
of equally bad members the youngest dies:
  test_the_worst_by_rank_then_room_dies_and_of_equals_the_oldest
- ages = np.append(-state.serial, -state.serial.max() - 1)
+ ages = np.append(state.serial, -state.serial.max() - 1)
"""

if __name__ == "__main__":
  sys.exit(main())
