"""Makes a run of exported weights, to go on with here:

  python launch/import_weights.py --weights=exports/digits/torch \\
    --workdir=runs/digits_again
  python launch/main.py --config=configs/finetune.py \\
    --config.model.checkpoint=runs/digits_again --workdir=runs/finetune

The weights may have been trained further in PyTorch: a folder that
launch/export.py wrote as torch or safetensors, or a file of weights with
config.json of that folder beside it.
"""

from absl import flags

from nasnet_jax.cli import entry
from nasnet_jax.training import mesh

_WEIGHTS = flags.DEFINE_string("weights", None, "exported folder, or a file")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the new run")


def main(argv: list[str]):
  del argv
  if not _WEIGHTS.value or not _WORKDIR.value:
    raise entry.UsageError("give --weights=exports/... and --workdir=runs/...")
  mesh.prepare_host()
  from nasnet_jax.costs import counting  # only now may JAX start
  from nasnet_jax.export import importing

  found = importing.to_run(_WEIGHTS.value, _WORKDIR.value)
  params = counting.count_params(found.variables)
  print(
    f"{_WORKDIR.value}: {params:,} parameters for"
    f" {len(found.result['data']['classes'])} classes of"
    f" {found.result['data']['name']}"
  )


if __name__ == "__main__":
  entry.run(main)
