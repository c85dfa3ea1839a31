"""The search of Zoph et al. 2018 on CIFAR-10, at the paper's settings.

Paper:    Learning Transferable Architectures for Scalable Image Recognition
          (arXiv 1707.07012), section 3 and appendix A.
Data:     CIFAR-10: 45,000 images to train on, a random 5,000 to validate,
          10,000 to test. The official binary archive is downloaded, or taken
          from --config.data.data_dir; or any images of your own, with
          --config.data.source=folder --config.data.options.path=...
Command:  python launch/main.py --config=configs/search_cifar.py \\
            --workdir=runs/search_cifar
          With `:small` behind the file's name: 64 children that two CPU
          cores train in about half an hour, on 5,000 images of an archive of
          class folders, at 16x16 (see docs/results/search_cifar_small/).
          `:pictures` searches on pictures of your own, some hundred to some
          ten thousand in class folders, at 32x32, a fifth of them to validate:
          --config.data.options.path=PICTURES. `:tiny` takes digits, and a
          minute or so.
          --config.search.hours=8 ends it in time for the final stage; so do
          --config.search.epochs and .patience, which are reproducible, as
          hours are not. The same folder takes more children later.
Hardware: the paper's search took 500 P100 GPUs for 4 days. Two CPU cores
          manage what `:small` asks for. On 256 chips of a TPU v5e it would
          be 21.5 hours, by the compiler's count (docs/pods.md), with
          --config.search.children_per_round=256. What suits the machine is
          chosen by itself and told in a line (docs/speed.md).
Result:   see docs/results; nothing is claimed here.

Where the paper gives no number, the comment beside it says so.
"""

from nasnet_jax import fields


def get_config(variant: str = ""):
  """The config; "small" is for two CPU cores, "pictures" for one's own,
  "tiny" for tests."""
  if variant not in ("", "small", "pictures", "tiny"):
    raise ValueError(
      f"search_cifar has no variant {variant!r}: small, pictures or tiny"
    )
  config = fields.jobs.search(
    fields.spaces.nasnet(),
    fields.networks.child_cells(),
    fields.recipes.child(),
    fields.images.in_memory("cifar10"),
    fields.recipes.final(fields.networks.final_cells()),
  )
  config.data.num_valid = 5000  # Zoph et al. 2018, appendix A: "a random 5,000"
  if variant == "small":
    _make_small(config)
    fields.images.make_small(config.data, max_per_class=500, num_valid=1000)
  elif variant == "pictures":
    _make_small(config)
    _make_pictures(config)
  elif variant == "tiny":
    fields.jobs.make_tiny_search(config)
    config.space.num_blocks = 2
    config.space.operations = ("identity", "conv_1x1", "max_pool_3x3")
    for network in (config.network, config.final.network):
      network.num_cells = network.num_reductions = 1
      network.features = 4
    config.final.network.aux = False
    fields.images.make_tiny(config.data)
  return config


def _make_small(config):
  config.network.num_cells = 1
  config.network.features = 8
  config.child.epochs = 1
  config.child.batch_size = 64
  config.child.learning_rate = 0.1  # few steps, so larger ones
  config.child.init = "fan_in"  # slim's makes the first logits too large
  strategies = config.search.controller_options
  # 64 children are three updates: the paper's 3.5e-4 would change nothing.
  strategies.ppo.learning_rate = 5e-3
  strategies.ppo.normalise = True
  strategies.reinforce.learning_rate = 0.02
  # Too few children for the papers' population and for a neighbourhood.
  strategies.evolution.population = 16
  strategies.evolution.sample = 4
  strategies.local_search.first_improvement = True
  strategies.local_search.starts = 20
  config.search.children = 64
  config.mesh.arch = 2  # a core for each child
  config.final.top_k = 2
  config.final.rank_epochs = 5
  config.final.epochs = 15
  config.final.batch_size = 64
  config.final.learning_rate = 0.1  # few steps, so larger ones
  config.final.drop_path_keep = 1.0  # too short a training to need it
  config.final.checkpoint_seconds = 60.0
  config.final.network.num_cells = 1
  config.final.network.features = 12
  config.final.network.aux = False
  config.final.network.init = "fan_in"  # as of the children


def _make_pictures(config):
  """As `small`, longer, since there may be few pictures."""
  fields.images.make_own(config.data, image_size=32)
  config.child.epochs = 5
  config.child.batch_size = 32
  config.final.batch_size = 32
  config.final.rank_epochs = 20
  config.final.epochs = 60
