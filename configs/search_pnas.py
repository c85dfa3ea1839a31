"""Progressive search of the PNAS space on CIFAR-10, at the paper's settings.

Paper:    Progressive Neural Architecture Search (Liu et al. 2018, arXiv
          1712.00559): cells of one block, then the 256 of each further size
          that a predictor thinks best: 136 + 4 x 256 children.
Data:     CIFAR-10, as in `search_cifar.py`, whose other settings hold here.
Command:  python launch/main.py --config=configs/search_pnas.py \\
            --workdir=runs/search_pnas
          With `:small` behind the file's name: 64 children of up to three
          blocks that two CPU cores train, on 5,000 images of an archive of
          class folders, at 16x16. With `:tiny` it takes digits instead.
Hardware: the search cost about 225 GPU-days, as later papers quote it. Two
          CPU cores manage what `:small` asks for.
Result:   the paper's PNASNet-5 has 3.41 % test error on CIFAR-10; nothing is
          claimed here.

Where the paper gives no number that is known to us, the comment says so.
"""

import pathlib
import runpy


def get_config(variant: str = ""):
  """The config; "small" is for two CPU cores, "tiny" for tests."""
  if variant not in ("", "small", "tiny"):
    raise ValueError(
      f"search_pnas has no variant {variant!r}, only 'small' and 'tiny'"
    )
  config = _search_cifar(variant)
  config.space.name = "pnas"
  config.space.min_blocks = 1  # progressive search needs it
  # A stack's first cell of stride 2 is one of its N (slim, pnasnet.py).
  config.network.layout = "pnas"
  # A stack's first cell of stride 2 is one of its N (slim, pnasnet.py).
  config.final.network.layout = "pnas"
  config.search.controller = "progressive"
  options = config.search.controller_options.progressive

  if not variant:
    config.space.num_blocks = 5  # B, Liu et al. 2018
    config.network.features = 24  # F; N is 2, as in search_cifar.py
    config.child.learning_rate = 0.01  # cosine, 20 epochs
    config.search.children = 136 + 4 * options.beam
    # Of a level; it is lost if the process is killed, so not a whole one.
    config.search.children_per_round = 32
    # No child is trained again to be ranked: M2 is 0 in the table of costs.
    config.final.top_k = 1
    config.final.rank_epochs = 1
    config.final.network.num_cells = 3  # N, PNASNet-5
    config.final.network.features = 48  # F, PNASNet-5
  if variant == "small":
    # 36 cells of one block, of four operations, then two levels of 14.
    config.space.num_blocks = 3
    config.space.operations = (
      "sep_conv_3x3",
      "sep_conv_5x5",
      "identity",
      "max_pool_3x3",
    )
    options.beam = 14
    config.search.children = 36 + 2 * 14
  if variant == "tiny":
    config.space.operations = ("identity", "max_pool_3x3")
    options.first_level = 4
    options.beam = 2
  return config


def _search_cifar(variant: str):
  """The config of the file beside this one; configs are no package."""
  path = pathlib.Path(__file__).with_name("search_cifar.py")
  return runpy.run_path(str(path))["get_config"](variant)
