"""Run by test_timm.py with a Python that has timm; nasnet_jax is not there.

NAME is of timm, of EfficientNet-PyTorch ("efficientnet-b0") or of torchvision
("torchvision/resnet50"). Pixels are whitened here as timm's pretrained_cfg
says.

python timm_logits.py give NAME SIDE OUT.npz      random weights and logits
python timm_logits.py take NAME IN.npz OUT.npz    logits with given weights
"""

import json
import sys

import numpy as np
import timm
import torch

# EfficientNet-PyTorch, README.md; torchvision, transforms/_presets.py.
COLOURS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def make(name, side):
  """(model, how its pictures are prepared)."""
  library, _, plain = name.rpartition("/")
  if library:
    import torchvision

    return getattr(torchvision.models, plain)(num_classes=1000), COLOURS
  if not name.startswith("efficientnet-"):
    model = timm.create_model(name, pretrained=False, num_classes=1000)
    return model, dict(model.pretrained_cfg)
  import efficientnet_pytorch

  model = efficientnet_pytorch.EfficientNet.from_name(name, image_size=side)
  return model, COLOURS


def logits_of(model, config, pixels):
  """In float64."""
  images = torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 255
  mean, std = (
    torch.tensor(config[key], dtype=torch.float64).reshape(1, -1, 1, 1)
    for key in ("mean", "std")
  )
  with torch.no_grad():
    return model.double().eval()((images - mean) / std).numpy()


@torch.no_grad()
def randomise(model, side):
  """Weights at random, and statistics near those of what they make of noise:
  with others all pictures would have almost the same logits."""
  generator = torch.Generator().manual_seed(0)
  for name, value in model.named_parameters():
    noise = torch.empty(value.shape).normal_(generator=generator)
    if value.ndim > 1:
      value.copy_(noise * value[0].numel() ** -0.5)
    else:
      value.copy_(name.endswith("weight") + 0.2 * noise)
  norms = [m for m in model.modules() if hasattr(m, "running_var")]
  for norm in norms:
    norm.momentum = 1.0
  images = torch.empty(8, 3, side, side).uniform_(generator=generator)
  model.train()((images - 0.45) / 0.226)  # about as pixels are whitened
  for norm in norms:
    noise = torch.empty(2, *norm.bias.shape).uniform_(generator=generator)
    norm.running_mean += 0.2 * (noise[0] - 0.5) * norm.running_var.sqrt()
    norm.running_var *= 0.9 + 0.2 * noise[1]


what, name = sys.argv[1:3]
if what == "give":
  side = int(sys.argv[3])
  model, config = make(name, side)
  randomise(model, side)
  rng = np.random.default_rng(1)
  pixels = rng.integers(0, 256, (2, side, side, 3), np.uint8)
  state = {k: v.numpy() for k, v in model.state_dict().items()}
  torch.save(model.state_dict(), f"{sys.argv[4]}.pth")
else:
  with np.load(sys.argv[3]) as file:
    state = {k: file[k] for k in file.files}
  pixels = state.pop("pixels")
  model, config = make(name, pixels.shape[1])
  given = {k: torch.from_numpy(v) for k, v in state.items()}
  whole = model.state_dict()
  assert set(given) == {k for k, v in whole.items() if v.ndim}
  whole.update(given)
  model.load_state_dict(whole)
  state = {}
np.savez(
  sys.argv[4],
  pixels=pixels,
  logits=logits_of(model, config, pixels),
  config=json.dumps(config),
  **state,
)
