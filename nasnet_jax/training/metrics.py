"""Metrics summed on the device and read now and then."""

import flax
from clu import metrics


@flax.struct.dataclass
class Totals(metrics.Collection):
  """Means over all steps since they were emptied."""

  loss: metrics.Average.from_output("loss")
  accuracy: metrics.Average.from_output("accuracy")


def add(totals: Totals, step_metrics: dict) -> Totals:
  """Totals with one more step; safe inside `jit`."""
  return totals.merge(Totals.single_from_model_output(**step_metrics))


def read(totals: Totals) -> dict[str, float]:
  """The means as Python floats; waits for the device."""
  return {name: float(value) for name, value in totals.compute().items()}
