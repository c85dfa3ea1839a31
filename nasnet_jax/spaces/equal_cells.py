"""Which cells are equal: one representative of each set, for many at a time."""

import numpy as np


def sort_sides(cells: np.ndarray, num_operations: int) -> np.ndarray:
  """int[m, B, 4 or 5] with the sides of each block in order."""
  sides = cells[..., 0:2] * num_operations + cells[..., 2:4]
  inputs, ops = np.divmod(np.sort(sides, -1), num_operations)
  return np.concatenate([inputs, ops, cells[..., 4:]], -1)


def canonical(
  cells: np.ndarray, num_operations: int, num_combiners: int
) -> np.ndarray:
  """int[m, B, 4 or 5] -> the smallest of all equivalent tables, per row.

  Block by block, the next one is the smallest of those whose inputs are there
  already. There is a choice only between equal blocks that other blocks read;
  then all choices are followed side by side.
  """
  m, num_blocks, width = cells.shape
  inputs, ops = cells[..., 0:2], cells[..., 2:4]
  combine = cells[..., 4] if width == 5 else np.zeros(cells.shape[:2], int)
  pairs = (num_blocks + 2) * num_operations
  is_read = (inputs[:, :, :, None] == np.arange(num_blocks) + 2).any((1, 2))
  nowhere = num_blocks + 2
  # One line per choice, in the order of rows; place: where old states are now.
  row, place = np.arange(m), np.full((m, num_blocks + 2), nowhere, np.int32)
  place[:, :2] = 0, 1
  best = np.zeros((m, num_blocks), np.int64)
  for position in range(num_blocks):
    moved = np.take_along_axis(
      place, inputs[row].reshape(len(row), -1), 1
    ).reshape(-1, num_blocks, 2)
    sides = moved * num_operations + ops[row]
    code = sides.min(-1) * np.int64(pairs) + sides.max(-1)
    code = code * num_combiners + combine[row]
    ready = (moved < nowhere).all(-1) & (place[:, 2:] == nowhere)
    code[~ready] = np.iinfo(np.int64).max
    starts = np.searchsorted(row, np.arange(m))
    best[:, position] = np.minimum.reduceat(code.min(-1), starts)
    chosen = code == best[row, position, None]
    # Blocks that nothing reads are interchangeable: the first one will do.
    unread = chosen & ~is_read[row]
    chosen ^= unread & (np.cumsum(unread, -1) > 1)
    line, block = np.nonzero(chosen)
    row, place = row[line], place[line]
    place[np.arange(len(line)), block + 2] = position + 2
  result = np.empty_like(cells)
  sides, combined = np.divmod(best, num_combiners)
  for side, part in enumerate(np.divmod(sides, pairs)):
    result[..., side], result[..., 2 + side] = np.divmod(part, num_operations)
  if width == 5:
    result[..., 4] = combined
  return result
