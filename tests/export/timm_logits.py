"""Run by test_timm.py with a Python that has timm; nasnet_jax is not there.

python timm_logits.py give NAME SIDE OUT.npz      random weights and logits
python timm_logits.py take NAME IN.npz OUT.npz    logits with given weights
"""

import sys

import numpy as np
import timm
import torch


def logits_of(model, images):
  with torch.no_grad():
    return model.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()


@torch.no_grad()
def randomise(model):
  generator = torch.Generator().manual_seed(0)
  for name, value in model.state_dict().items():
    if name.endswith("num_batches_tracked"):
      continue
    noise = torch.empty(value.shape).normal_(generator=generator)
    if value.ndim > 1:
      fan_in = value[0].numel()
      value.copy_(noise * fan_in**-0.5)
    elif name.endswith("running_var"):
      value.copy_(1 + 0.5 * noise.abs())
    elif name.endswith("weight"):
      value.copy_(1 + 0.2 * noise)
    else:
      value.copy_(0.2 * noise)


what, name = sys.argv[1:3]
model = timm.create_model(name, pretrained=False, num_classes=1000)
if what == "give":
  side = int(sys.argv[3])
  randomise(model)
  rng = np.random.default_rng(1)
  images = rng.uniform(-1, 1, (2, side, side, 3)).astype(np.float32)
  state = {k: v.numpy() for k, v in model.state_dict().items()}
else:
  with np.load(sys.argv[3]) as file:
    state = {k: file[k] for k in file.files}
  images = state.pop("images")
  model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
  state = {}
np.savez(sys.argv[4], images=images, logits=logits_of(model, images), **state)
