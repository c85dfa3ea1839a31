"""How networks are trained: children, the winners of a search, the rest."""

from ml_collections import ConfigDict


def child() -> ConfigDict:
  """The children of Zoph et al. 2018 on CIFAR-10."""
  child = ConfigDict()
  child.epochs = 20  # Zoph et al. 2018, appendix A
  child.batch_size = 32  # not in the paper; slim, cifar_config
  child.learning_rate = 0.025  # not in the paper; slim, cifar_config
  child.schedule = "cosine"  # Zoph et al. 2018, appendix A: one period
  child.momentum = 0.9  # Zoph et al. 2018, appendix A
  child.nesterov = False  # not in the paper; slim's optimiser has none
  child.weight_decay = 5e-4  # the paper: "L2"; the number is slim's
  child.clip_norm = 5.0  # not in the paper; slim, cifar_config
  child.drop_path_keep = 1.0  # off: not said of children in the paper
  child.drop_path_version = "both"  # or "time", "layer", "depth"
  child.init = "fan_out"  # slim, nasnet_cifar_arg_scope
  child.bn_decay = 0.9  # slim, nasnet_cifar_arg_scope
  child.bn_epsilon = 1e-5  # slim, nasnet_cifar_arg_scope
  child.bn_group = 0  # examples; 0: the whole batch
  child.width = 0  # children at once per device; 0: chosen (docs/speed.md)
  child.steps_per_call = 0  # updates per device call; 0: chosen
  child.eval_batch_size = 0  # images per step of evaluation; 0: chosen
  child.dtype = "float32"  # "bfloat16" on TPU: activations only
  child.fold = 0  # examples side by side in channels; 0: chosen
  child.kernels = "xla"  # "pallas": our own for separable convolutions, on TPU
  return child


def enas_child() -> ConfigDict:
  """The weights that all children of ENAS's micro search share (Pham et al.
  2018): melodyguan/enas, cifar10_micro_search.sh."""
  shared = child()
  shared.epochs = 150  # num_epochs
  shared.batch_size = 160  # batch_size
  shared.learning_rate = 0.05  # child_lr_max
  shared.schedule = "restarts"  # child_lr_cosine: 10, 20, 40, 80 epochs
  shared.nesterov = True  # utils.py
  # utils.py: 1e-4 times the sum of squares, whose gradient has a 2.
  shared.weight_decay = 2e-4
  # utils.py names a bound, and goes on with what was not clipped.
  shared.clip_norm = 0.0
  shared.init = "fan_in"  # He et al. 2015
  shared.eval_batch_size = 160  # micro_controller.py: batch_size
  return shared


def enas_final(network: ConfigDict) -> ConfigDict:
  """The last stage of ENAS's micro search: melodyguan/enas,
  cifar10_micro_final.sh.

  Args:
    network: its sizes.
  """
  last = final(network)
  # The paper retrains one of several samples, the best on a batch each. Ten are
  # ours: a batch of 160 does not tell the best of 45,000.
  last.top_k = 10
  last.rank_epochs = 50  # ours
  last.epochs = 630  # num_epochs
  last.batch_size = 144  # batch_size
  last.learning_rate = 0.05  # child_lr_max
  last.schedule = "restarts"  # child_lr_cosine; down to 1e-4 there
  last.weight_decay = 4e-4  # child_l2_reg: twice 2e-4, as of the children
  last.clip_norm = 0.0  # as of the children
  last.drop_path_keep = 0.6  # child_drop_path_keep_prob
  return last


def final(network: ConfigDict) -> ConfigDict:
  """The last stage of Zoph et al. 2018: the best children again, longer, and
  the best of them as NASNet-A (6 @ 768).

  Args:
    network: its sizes.
  """
  final = ConfigDict()
  final.top_k = 250  # Zoph et al. 2018, appendix A
  # Not in the paper's text. PNAS's table of costs implies 13.5 million
  # examples for each of the 250: 300 epochs of 45,000.
  final.rank_epochs = 300
  final.rank_together = False  # True: as children, in one program
  final.epochs = 600  # slim's length of ScheduledDropPath's ramp
  final.network = network
  final.batch_size = 32  # slim, cifar_config
  final.learning_rate = 0.025  # slim, cifar_config
  final.schedule = "cosine"  # slim, cifar_config
  final.momentum = 0.9  # Zoph et al. 2018, appendix A
  final.weight_decay = 5e-4  # slim, nasnet_cifar_arg_scope
  final.clip_norm = 5.0  # slim, cifar_config
  final.aux_weight = 0.4  # slim, cifar_config
  final.label_smoothing = 0.0
  final.drop_path_keep = 0.6  # slim, cifar_config
  final.drop_path_version = "both"  # slim's v3; the paper: "time"
  final.steps_per_call = 0  # updates per device call; 0: chosen
  final.eval_batch_size = 0  # images per step of evaluation; 0: chosen
  final.report_epochs = 1.0  # between points of the curve
  final.checkpoint_seconds = 600.0  # between saved states
  final.now = False  # True: a winner out of the children there are
  return final


def nasnet_cifar() -> ConfigDict:
  """NASNet-A on CIFAR-10; all fields of the training of a classifier."""
  train = ConfigDict()
  train.seed = 0
  train.epochs = 600  # slim: the length of drop path's ramp
  train.batch_size = 32  # slim, cifar_config
  train.optimizer = "momentum"  # Zoph et al. 2018, A.3
  train.momentum = 0.9  # Zoph et al. 2018, A.3
  train.rms_decay = 0.9  # of rmsprop only
  train.rms_epsilon = 1.0  # of rmsprop only
  train.learning_rate = 0.025  # slim, cifar_config
  train.schedule = "cosine"  # slim, cifar_config: one period
  train.warmup_epochs = 0.0
  train.decay_factor = 0.97  # of the exponential schedule only
  train.decay_epochs = 2.4  # of the exponential schedule only
  train.weight_decay = 5e-4  # slim, nasnet_cifar_arg_scope
  train.clip_norm = 5.0  # slim, cifar_config
  train.aux_weight = 0.4  # slim, cifar_config
  train.label_smoothing = 0.0
  train.drop_path_keep = 0.6  # slim, cifar_config
  train.drop_path_version = "both"  # slim's v3; the paper: "time"
  train.ema_decay = 0.0  # 0: no averaged weights
  train.micro_batches = 1  # parts of a batch, one after another
  train.bn_group = 0  # examples; 0: the whole batch
  train.dtype = "float32"  # "bfloat16" on TPU: activations only
  train.freeze = False  # True: the classifier alone
  train.steps_per_call = 0  # updates per device call; 0: chosen
  train.eval_batch_size = 0  # images per step of evaluation; 0: chosen
  train.report_epochs = 1.0  # between points of the curve
  train.checkpoint_seconds = 600.0  # between saved states
  return train


def finetuning() -> ConfigDict:
  """From trained weights; no paper of this line gives it, so it is ours."""
  train = nasnet_cifar()
  train.epochs = 20  # ours
  train.batch_size = 64  # ours
  train.learning_rate = 0.01  # ours
  train.drop_path_keep = 1.0  # ours
  return train


def nasnet_imagenet(large: bool) -> ConfigDict:
  """NASNet-A on ImageNet: slim's, mobile_imagenet_config or
  large_imagenet_config."""
  train = nasnet_cifar()
  train.epochs = 312  # 250,000 steps
  train.batch_size = 1600  # slim's comments: 50 x 32, or 100 x 16
  train.optimizer = "rmsprop"  # Zoph et al. 2018, A.7
  train.momentum = 0.9  # slim's default; not in the paper
  train.rms_decay = 0.9  # Zoph et al. 2018, A.7
  train.rms_epsilon = 1.0  # Zoph et al. 2018, A.7
  train.learning_rate = 1.5 if large else 2.0  # slim: 100 x .015, 50 x .04
  train.schedule = "exponential"  # slim
  train.decay_factor = 0.97  # slim
  train.decay_epochs = 2.4  # slim
  train.weight_decay = 5e-5 if large else 4e-5  # slim, ..._arg_scope
  train.clip_norm = 10.0  # slim
  train.aux_weight = 0.4  # slim
  train.label_smoothing = 0.1  # slim
  train.drop_path_keep = 0.7 if large else 1.0  # slim
  train.ema_decay = 0.9999  # Zoph et al. 2018, A.7
  train.bn_group = 16 if large else 32  # examples of a replica of slim's
  return train


def pnasnet_imagenet(large: bool) -> ConfigDict:
  """PNASNet-5 on ImageNet, as far as it is not NASNet's."""
  train = nasnet_imagenet(large)
  train.weight_decay = 4e-5  # slim, pnasnet.py
  train.drop_path_keep = 0.6 if large else 1.0  # slim, pnasnet.py
  return train


def amoebanet_imagenet(large: bool) -> ConfigDict:
  """AmoebaNet-A to C on ImageNet, as far as it is known and not NASNet's."""
  train = nasnet_imagenet(large)
  train.rms_epsilon = 0.1  # Real et al. 2019, "Methods"
  # Real et al. 2019, for 100 GPUs; their batch is not printed.
  train.learning_rate = 0.001
  train.decay_epochs = 2.0  # Real et al. 2019, "Methods"
  train.weight_decay = 4e-5  # Real et al. 2019, "Methods"
  train.drop_path_keep = 0.7 if large else 1.0  # 0.7; mobile: as NASNet's
  train.drop_path_version = "time"  # Real et al. 2019, "Methods"
  return train


def amoebanet_d_imagenet(large: bool) -> ConfigDict:
  """AmoebaNet-D on ImageNet, as far as it is not NASNet's."""
  train = nasnet_imagenet(large)
  train.epochs = 48  # tensorflow/tpu, amoeba_net
  train.batch_size = 256  # tensorflow/tpu, amoeba_net
  train.learning_rate = 0.64  # tensorflow/tpu, amoeba_net
  train.warmup_epochs = 3.0  # tensorflow/tpu, amoeba_net
  train.decay_factor = 0.9  # tensorflow/tpu, amoeba_net
  train.decay_epochs = 1.0  # tensorflow/tpu, amoeba_net
  train.weight_decay = 4e-5  # tensorflow/tpu, amoeba_net
  train.drop_path_keep = 0.7  # tensorflow/tpu, amoeba_net
  train.drop_path_version = "time"  # tensorflow/tpu, amoeba_net: v1
  return train


def efficientnet() -> ConfigDict:
  """EfficientNet on ImageNet: Tan & Le 2019, section 5.2, and their code,
  tensorflow/tpu's main.py."""
  train = nasnet_cifar()
  train.epochs = 350  # main.py: 218,949 steps of 2,048 images
  train.batch_size = 2048  # main.py
  train.optimizer = "rmsprop"  # Tan & Le 2019, section 5.2
  train.momentum = 0.9  # Tan & Le 2019, section 5.2
  train.rms_decay = 0.9  # Tan & Le 2019, section 5.2
  train.rms_epsilon = 1e-3  # utils.py, build_optimizer
  train.learning_rate = 0.128  # 0.016 per 256; the paper: 0.256 at 4,096
  train.schedule = "exponential"  # Tan & Le 2019, section 5.2
  train.warmup_epochs = 5.0  # their code
  train.decay_factor = 0.97  # Tan & Le 2019, section 5.2
  train.decay_epochs = 2.4  # Tan & Le 2019, section 5.2
  # Theirs decays biases too, of squeeze-excite and of the classifier.
  train.weight_decay = 1e-5
  train.clip_norm = 0.0  # 0: none
  train.aux_weight = 0.0  # there is no auxiliary head
  train.label_smoothing = 0.1  # their code
  train.drop_path_keep = 0.8  # their code: 1 - drop_connect_rate
  train.drop_path_version = "depth"  # their code
  train.ema_decay = 0.9999  # their code
  train.bn_group = 0  # examples; theirs: those of 8 or more replicas
  # The paper stops early and does not say when; this keeps the best epoch.
  train.patience_epochs = 350.0
  return train


def mnasnet() -> ConfigDict:
  """MnasNet on ImageNet, as far as it is not EfficientNet's."""
  train = efficientnet()
  train.batch_size = 1024  # mnasnet_main.py
  train.learning_rate = 0.064  # mnasnet_main.py: 0.016 per 256
  train.drop_path_keep = 1.0  # mnasnet_main.py
  return train


def scaling() -> ConfigDict:
  """EfficientNet's, for a tenth of the epochs: Tan & Le 2019 does not say how
  the points of its grid were trained."""
  train = efficientnet()
  del train.freeze  # there are no weights to start from
  train.epochs = 35  # a tenth; the paper does not say
  train.warmup_epochs = 0.5  # a tenth of theirs
  train.decay_epochs = 0.24  # a tenth of theirs
  train.drop_path_keep = 1.0  # too short a training to need it
  train.ema_decay = 0.999
  train.patience_epochs = 0.0  # 0: every point to its end
  return train


def scaling_cifar() -> ConfigDict:
  """That of a search's children: Zoph et al. 2018, appendix A."""
  train = scaling()
  train.epochs = 20  # Zoph et al. 2018, appendix A
  train.batch_size = 32  # slim, cifar_config
  train.optimizer = "momentum"  # Zoph et al. 2018, A.3
  train.learning_rate = 0.025  # slim, cifar_config
  train.schedule = "cosine"  # Zoph et al. 2018, appendix A: one period
  train.warmup_epochs = 0.0
  train.weight_decay = 5e-4  # slim, nasnet_cifar_arg_scope
  train.clip_norm = 5.0  # slim, cifar_config
  train.label_smoothing = 0.0
  train.ema_decay = 0.0  # 0: no averaged weights
  return train


def detection(large: bool = False) -> ConfigDict:
  """Faster R-CNN on COCO: faster_rcnn_nas_coco of the TF Object Detection
  API."""
  train = ConfigDict()
  train.seed = 0
  train.epochs = 12  # ours: past both falls of the rate
  train.batch_size = 1  # faster_rcnn_nas_coco, per device
  train.optimizer = "momentum"  # faster_rcnn_nas_coco
  train.momentum = 0.9  # faster_rcnn_nas_coco
  train.rms_decay = 0.9  # of rmsprop only
  train.rms_epsilon = 1.0  # of rmsprop only
  train.learning_rate = 3e-4  # faster_rcnn_nas_coco
  train.schedule = "piecewise"  # faster_rcnn_nas_coco
  train.warmup_epochs = 0.0
  train.decay_factor = 0.1  # faster_rcnn_nas_coco
  train.decay_at = (7.61, 10.15)  # 900,000 and 1,200,000 steps of train2017
  train.weight_decay = 0.0  # faster_rcnn_nas_coco
  train.clip_norm = 10.0  # faster_rcnn_nas_coco
  train.drop_path_keep = 0.7 if large else 1.0  # slim, as in classification
  train.drop_path_version = "both"  # slim's v3
  train.ema_decay = 0.0  # 0: no averaged weights
  train.micro_batches = 1  # parts of a batch, one after another
  train.bn_group = 0  # examples; 0: the whole batch
  train.dtype = "float32"  # "bfloat16" on TPU: activations only
  train.steps_per_call = 0  # 0 or 1: a stream gives one batch per call
  train.eval_batch_size = 0  # pictures per step of evaluation; 0: chosen
  train.report_epochs = 1.0  # between points of the curve
  train.patience_epochs = 0.0  # 0: to the end, and the last weights
  train.checkpoint_seconds = 600.0  # between saved states
  return train
