"""The search of ENAS on CIFAR-10: one set of weights for all children.

Paper:    Efficient Neural Architecture Search via Parameter Sharing (Pham et
          al. 2018, arXiv 1802.03268), its micro search space. Numbers are those
          of the released code, github.com/melodyguan/enas: its scripts
          cifar10_micro_search.sh and cifar10_micro_final.sh.
Data:     CIFAR-10, as in `search_cifar.py`.
Command:  python launch/main.py --config=configs/search_enas.py \\
            --workdir=runs/search_enas
          With `:small` behind the file's name: what two CPU cores manage, on
          5,000 images of an archive of class folders, at 16x16. `:tiny` takes
          digits; its 2.9 CPU minutes are mostly compiling (2026-11-30).
          Single path one-shot (Guo et al. 2019, arXiv 1904.00420) is the same
          with --config.search.shared.epochs=0 (all training comes before the
          first child), --config.search.shared.sampling=uniform,
          --config.search.shared.calibration_batches=20,
          --config.search.shared.valid_batches=0 and
          --config.search.controller=evolution.
Hardware: the paper's search took 0.45 GPU days (from memory).
Result:   the paper has 2.89 % test error on CIFAR-10, with CutOut; nothing is
          claimed here.

Where this differs from the released code: weights that no sampled child has do
not move (there, decay and momentum move them, too); children have no auxiliary
head and no dropout; the controller is REINFORCE's of Zoph & Le 2017 with ENAS's
sizes, without its attention over states, its tanh of the logits and its bonus
for entropy; decay is of kernels only; the final stage has no Nesterov momentum
and no CutOut. See docs/shared_weights.md.
"""

import pathlib
import runpy

from nasnet_jax import fields

OPERATIONS = (  # Pham et al. 2018, section 2.4
  "sep_conv_3x3",
  "sep_conv_5x5",
  "avg_pool_3x3",
  "max_pool_3x3",
  "identity",
)


def get_config(variant: str = ""):
  """The config; "small" is for two CPU cores, "tiny" for tests."""
  if variant not in ("", "small", "tiny"):
    raise ValueError(
      f"search_enas has no variant {variant!r}, only 'small' and 'tiny'"
    )
  config = _search_cifar(variant)
  search = config.search
  search.weights = "shared"
  search.shared.sampling = "strategy"
  search.shared.per_input = True
  search.controller = "reinforce"
  if variant != "tiny":
    config.space.operations = OPERATIONS
    search.controller_options.reinforce = fields.strategies.enas()
  if not variant:
    _make_published(config)
  if variant == "small":
    config.child.epochs = 20  # 1,240 updates in all
    search.children = 20 * 30
    search.children_per_round = 30
    search.shared.valid_batches = 1
    config.child.eval_batch_size = 200
    config.mesh.arch = 1  # a single child in each update
  if variant == "tiny":
    config.child.epochs = 200  # of 150 digits: 2,000 updates in all
    config.child.batch_size = 15  # few digits, so small batches
    config.child.learning_rate = 0.02  # at 0.1 nothing is learned
    config.child.init = "fan_in"  # slim's makes the first logits too large
    config.child.eval_batch_size = 50
    search.shared.epochs = 50.0
    search.children = 24
    search.children_per_round = 6
    search.controller_options.reinforce.learning_rate = 0.02
  return config


def _make_published(config):
  config.network.num_cells = 2  # cifar10_micro_search.sh, child_num_layers 6
  config.network.features = 20  # cifar10_micro_search.sh, child_out_filters
  config.child = fields.recipes.enas_child()
  search = config.search
  search.shared.valid_batches = 1  # micro_child.py, build_valid_rl
  search.children_per_round = 300  # cifar10_micro_search.sh: 30 x 10
  search.children = 150 * 300  # in each of 150 epochs
  config.final = fields.recipes.enas_final(fields.networks.enas_final_cells())


def _search_cifar(variant: str):
  """The config of the file beside this one; configs are no package."""
  path = pathlib.Path(__file__).with_name("search_cifar.py")
  return runpy.run_path(str(path))["get_config"](variant)
