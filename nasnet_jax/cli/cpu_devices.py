"""How many devices a CPU pretends to be, which is settled before JAX starts."""

from nasnet_jax.training import mesh


def count(config, num_hosts: int = 1) -> int:
  """As many as the config's mesh asks of each host. A search that leaves that
  open has one per core, so that each trains a child, where it gives the same
  bits as one device.

  With rungs, or without rounds, who goes on and who is asked for hangs on who
  trains at the same time; shared weights add up a mean over devices.
  """
  arch, data = config.mesh.arch, config.mesh.data
  if config.job != "search" or arch or data > 1 or num_hosts > 1:
    return -(-max(1, arch) * data // num_hosts)
  search = config.search
  shared = search.get("weights", "alone") == "shared"
  if search.asynchronous or search.halving.eta or shared:
    return 1
  return mesh.devices_for_children(search.children_per_round)
