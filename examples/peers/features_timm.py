import timm
import torch

net = timm.create_model("efficientnet_b0", features_only=True).eval()
maps = net(torch.zeros(1, 3, 64, 64))
print([x.shape for x in maps], net.feature_info.reduction())
