from digits import images, labels

import nasnet_jax as nas

study = nas.search(
  images, labels, config="search_digits:tiny", folder="runs/arrays"
)
print(study.winner.predict(images[:8]).shape)
