"""Options of the strategies, as their papers have them.

By strategy; the one that `search.controller` names reads its own.
"""

from ml_collections import ConfigDict


def options() -> ConfigDict:
  """Of all eight."""
  found = ConfigDict()
  found.ppo = _ppo()
  found.random_search = ConfigDict()
  found.random_search.unique = False  # True: no child twice
  found.evolution = _evolution()
  found.genetic = _genetic()
  found.local_search = _local_search()
  found.reinforce = _reinforce()
  found.progressive = _progressive()
  found.predictor_search = _predictor_search()
  return found


def _ppo() -> ConfigDict:
  ppo = ConfigDict()
  ppo.learning_rate = 3.5e-4  # Zoph et al. 2018, appendix A
  ppo.batch_size = 20  # Zoph et al. 2018, appendix A
  ppo.entropy_weight = 1e-5  # Zoph et al. 2018, appendix A
  ppo.baseline_decay = 0.95  # Zoph et al. 2018, appendix A
  ppo.normalise = False  # True: advantages over their standard deviation
  return ppo


def _evolution() -> ConfigDict:
  evolution = ConfigDict()
  evolution.population = 100  # P, Real et al. 2019 (arXiv 1802.01548), sec. 3
  evolution.sample = 25  # S, Real et al. 2019, section 3
  evolution.identity = 0.05  # share without a mutation, Real et al. 2019
  evolution.ageing = True  # the oldest dies, Real et al. 2019; else the worst
  evolution.redraw = True  # a value may be drawn again; False: another one
  # True: NSGA-II's ranks (Deb et al. 2002), for search.objectives; nobody ages.
  evolution.pareto = False
  return evolution


def _genetic() -> ConfigDict:
  genetic = ConfigDict()
  genetic.population = 20  # Xie & Yuille 2017 (arXiv 1703.01513), MNIST
  genetic.crossover = 0.2  # p_C, Xie & Yuille 2017, MNIST
  genetic.crossover_group = 0.3  # q_C, Xie & Yuille 2017, MNIST
  genetic.mutation = 0.8  # p_M, Xie & Yuille 2017, MNIST
  genetic.mutation_decision = 0.1  # q_M, Xie & Yuille 2017, MNIST
  return genetic


def _local_search() -> ConfigDict:
  """One start, whole neighbourhoods: White et al. 2020 (arXiv 2005.02960)."""
  local_search = ConfigDict()
  local_search.first_improvement = False  # White et al. 2020
  local_search.starts = 1  # White et al. 2020
  local_search.memory = 20_000  # children that are remembered
  return local_search


def _reinforce() -> ConfigDict:
  reinforce = ConfigDict()
  reinforce.hidden = 35  # Zoph & Le 2017 (arXiv 1611.01578), section 4.1
  reinforce.layers = 2  # Zoph & Le 2017, section 4.1
  reinforce.learning_rate = 6e-4  # Zoph & Le 2017, section 4.1
  reinforce.batch_size = 8  # Zoph & Le 2017, section 4.1
  reinforce.init_scale = 0.08  # Zoph & Le 2017, section 4.1
  reinforce.baseline_decay = 0.95  # not in that paper; as for PPO
  return reinforce


def enas() -> ConfigDict:
  """REINFORCE with the sizes of ENAS (Pham et al. 2018), whose code is
  github.com/melodyguan/enas."""
  reinforce = _reinforce()
  reinforce.hidden = 64  # melodyguan/enas, main.py, lstm_size
  reinforce.layers = 1  # melodyguan/enas, main.py, lstm_num_layers
  reinforce.init_scale = 0.1  # melodyguan/enas, micro_controller.py
  reinforce.learning_rate = 3.5e-3  # melodyguan/enas, cifar10_micro_search.sh
  # melodyguan/enas, cifar10_micro_search.sh, controller_num_aggregate
  reinforce.batch_size = 10
  reinforce.baseline_decay = 0.99  # melodyguan/enas, main.py
  return reinforce


def _progressive() -> ConfigDict:
  """Needs space.min_blocks = 1."""
  progressive = ConfigDict()
  progressive.beam = 256  # K, Liu et al. 2018 (arXiv 1712.00559)
  progressive.predictor = "mlp"  # Liu et al. 2018
  progressive.members = 5  # Liu et al. 2018
  progressive.first_level = 512  # at most so many cells of one block
  progressive.exploration = 0.0  # Liu et al. 2018: the mean alone counts
  progressive.embedding = 100  # Liu et al. 2018
  progressive.hidden = 100  # Liu et al. 2018
  progressive.first_learning_rate = 0.01  # Liu et al. 2018, of one block
  progressive.learning_rate = 0.002  # Liu et al. 2018, afterwards
  progressive.epochs = 20  # not known to us
  progressive.batch_size = 32  # not known to us
  return progressive


def _predictor_search() -> ConfigDict:
  predictor_search = ConfigDict()
  predictor_search.first = 10  # ours, tuned on NAS-Bench-201
  predictor_search.per_fit = 5  # ours, tuned on NAS-Bench-201
  predictor_search.exploration = 0.5  # ours, tuned on NAS-Bench-201
  predictor_search.near = 0.4  # ours, tuned on NAS-Bench-201
  predictor_search.max_children = 4096
  return predictor_search
