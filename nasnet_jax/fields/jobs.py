"""A config of each job, from its groups."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from nasnet_jax.fields import strategies


def search(
  space: ConfigDict,
  network: ConfigDict,
  child: ConfigDict,
  data: ConfigDict,
  final: ConfigDict,
) -> ConfigDict:
  """A search by Zoph et al. 2018, PPO on 20,000 children, of any space."""
  config = ConfigDict()
  config.job = "search"
  config.space = space
  config.network = network
  config.child = child
  config.data = data
  config.mesh = ConfigDict()
  config.mesh.arch = 0  # 0: all devices there are
  config.mesh.data = 1  # devices that share a batch
  config.hosts = _hosts()
  config.search = _search()
  config.final = final
  _log(config)
  config.profile = ""  # "steps": a trace of a few steps, see docs/pods.md
  return config


def make_tiny_search(config: ConfigDict):
  """Six children and a short last stage, for tests."""
  config.child.epochs = 1
  config.search.children = 6
  config.search.children_per_round = 3
  options = config.search.controller_options
  options.ppo.batch_size = 3
  options.reinforce.batch_size = 3
  options.evolution.population = 3
  options.evolution.sample = 2
  options.local_search.starts = 3
  config.final.top_k = 2
  config.final.rank_epochs = 1
  config.final.rank_together = False
  config.final.epochs = 2
  config.final.checkpoint_seconds = 0.0


def training(
  network: ConfigDict, train: ConfigDict, data: ConfigDict
) -> ConfigDict:
  """The training of one network, from nothing or from a checkpoint."""
  config = ConfigDict()
  config.job = "train"
  config.model = ConfigDict()
  # A name, a run, RUN#12 (child 12), RUN#2nd (second best), a genotype's JSON;
  # "": the checkpoint's.
  config.model.genotype = ""
  config.model.checkpoint = ""  # folder of a run whose weights to start from
  config.model.keep_head = False  # whether its classifier is taken too
  config.network = network
  config.train = train
  config.data = data
  _machine(config)
  return config


def detection(
  network: ConfigDict,
  detector: ConfigDict,
  train: ConfigDict,
  data: ConfigDict,
) -> ConfigDict:
  """The training of a detector on a network as its backbone."""
  config = ConfigDict()
  config.job = "detect"
  config.model = ConfigDict()
  # Without a checkpoint: a name, a run, RUN#12, RUN#2nd, a genotype's JSON.
  config.model.genotype = ""
  config.model.checkpoint = ""  # folder of a trained classifier: say which
  config.network = network
  config.detector = detector
  config.train = train
  config.data = data
  _machine(config)
  return config


def scaling(
  network: ConfigDict, train: ConfigDict, data: ConfigDict
) -> ConfigDict:
  """A search for the coefficients of Tan & Le 2019, section 3.3."""
  config = ConfigDict()
  config.job = "scale"
  config.scale = ConfigDict()
  config.scale.target = 2.0  # Tan & Le 2019, section 3.3
  config.scale.tolerance = 0.1  # their choice: 1.92
  config.scale.step = 0.05
  config.scale.points = ()  # (alpha, beta, gamma), ... in place of the grid
  config.scale.phis = (2.0, 3.0)  # trained with the best of the points
  config.scale.seeds = 1  # trainings of each network
  config.model = ConfigDict()
  # A name, a run, RUN#12, RUN#2nd, a genotype's JSON.
  config.model.genotype = "efficientnet"
  config.network = network
  config.train = train
  config.data = data
  config.mesh = _mesh()
  _log(config)
  return config


def _machine(config: ConfigDict):
  """What a training runs on, and what it says meanwhile."""
  config.mesh = _mesh()
  config.mesh.shard_params = False  # True: each holds a part of the weights
  config.hosts = _hosts()
  _log(config)
  config.profile = ""  # "steps": a trace of a few steps, see docs/pods.md


def _mesh() -> ConfigDict:
  mesh = ConfigDict()
  mesh.arch = 1  # of searches only
  mesh.data = 1  # devices that share a batch
  return mesh


def _hosts() -> ConfigDict:
  hosts = ConfigDict()
  hosts.coordinator = ""  # or "auto" (TPU, Slurm, MPI), or HOST:PORT
  hosts.count = 1  # processes, if the coordinator is HOST:PORT
  hosts.index = 0  # which of them this is
  hosts.timeout = 60  # seconds; a host silent for longer is given up
  return hosts


def _log(config: ConfigDict):
  # 'wandb', 'mlflow', or 'module:name' of your own: told how the run goes.
  config.callbacks = ()
  config.log = ConfigDict()
  config.log.seconds = 60.0  # between lines on work that is under way


def _search() -> ConfigDict:
  search = ConfigDict()
  search.controller = "ppo"  # a name of controller_options
  search.controller_options = strategies.options()
  # Folder of another search of this space: the strategy (evolution, genetic,
  # local_search, predictor_search) learns from its children before its first.
  search.start_from = ""
  search.children = 20_000  # Zoph et al. 2018, appendix A
  # Asked for at a time: what the controller learns from, PPO's batch of 20.
  search.children_per_round = 20
  # What ends a search before its last child, the first of them that comes; 0:
  # no limit. The final stage follows.
  search.hours = 0.0  # of the whole run's clock: not reproducible
  search.epochs = 0.0  # trained by all children: reproducible
  search.patience = 0  # children without a better one: reproducible
  # True: no rounds, as the paper's queue has none; a slot whose child is done
  # takes the next, and children_per_round lie between two saved states.
  search.asynchronous = False
  search.reward = ConfigDict()
  # What the controller is told: "accuracy", or MnasNet's accuracy x (cost /
  # target)^w, "mnasnet_soft" or "mnasnet_hard" (Tan et al. 2019, section 3.1).
  search.reward.kind = "accuracy"
  search.reward.cost = "params"  # or "macs", "bytes", "latency"
  search.reward.target = 0.0  # T, in the cost's own unit
  # None: the paper's, -0.07 (soft), 0 (hard).
  search.reward.alpha = placeholder(float)
  # None: the paper's, -0.07 (soft), -1 (hard).
  search.reward.beta = placeholder(float)
  # Several at once, for strategies that take them (evolution with `pareto`):
  # "accuracy", then of "-params", "-macs", "-bytes", "-latency"; a "-" is for
  # what is better if it is less. (): search.reward alone.
  search.objectives = ()
  search.cost = ConfigDict()
  # Of the images that costs are counted for; 0: those of the children.
  search.cost.image_side = 0
  search.cost.latency_batch = 1  # images per measured call
  search.limit = ConfigDict()
  # A child with more is never trained; it counts as a child. 0: any number.
  search.limit.params = 0
  search.limit.macs = 0  # per image of search.cost.image_side
  search.limit.bytes = 0
  # Of initial weights, written down of each child: "grad_norm", "snip",
  # "synflow", "jacob_cov", "naswot" (docs/scores.md). (): none.
  search.scores = ()
  search.score_images = 64  # of the training images, the same for all children
  # Asks for so many times as many children, and trains those of the best
  # score; 0: trains all.
  search.prefilter = 0
  search.prefilter_score = "synflow"  # or another score, "params" or "macs"
  search.halving = ConfigDict()
  # Successive halving (Li et al. 2020): of the children at a rung the best
  # 1/eta go on. 0: off; 3 or 4 are usual.
  search.halving.eta = 0
  search.halving.min_epochs = 1.0  # the first rung; then eta x as far
  # Whose weights judge a child: "alone" trains each from nothing; "inherit"
  # (Real et al. 2017) from its parent's on, for evolution and local_search;
  # "shared" (ENAS, Pham et al. 2018) trains one set for all of them by the
  # recipe of `child`, child.epochs in all.
  search.weights = "alone"
  search.inherit = ConfigDict()
  # Of a child with a parent; the others train child.epochs.
  search.inherit.epochs = 1.0
  search.shared = ConfigDict()
  # Of training between two rounds, melodyguan/enas; 0: all comes before the
  # first round (Guo et al. 2019).
  search.shared.epochs = 1.0
  search.shared.samples = 1  # children per update; 1 in both papers
  # "uniform" (Guo et al. 2019), or "strategy": whom a policy would propose.
  search.shared.sampling = "uniform"
  # True: weights for each operation on each state, as ENAS has; False: for each
  # operation.
  search.shared.per_input = False
  # Of child.eval_batch_size validation images, to judge a child; 0: all.
  search.shared.valid_batches = 0
  # Training batches for batch norm's statistics (Guo et al. 2019); 0: those of
  # the batch that is judged (ENAS).
  search.shared.calibration_batches = 0
  search.seed = 0
  search.shuffle_labels = False  # True: what remains is chance
  return search
