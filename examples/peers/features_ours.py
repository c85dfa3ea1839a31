import numpy as np

import nasnet_jax as nas

net = nas.create_model("efficientnet_b0")
maps = net.features(np.zeros((1, 64, 64, 3), np.uint8))
print([x.shape for x in maps], [one["stride"] for one in net.feature_info])
