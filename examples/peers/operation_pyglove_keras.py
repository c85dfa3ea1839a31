import keras
import pyglove as pg
from digits import images, labels


class MixedPool(keras.layers.Layer):
  def __init__(self, features):
    super().__init__()
    self.max = keras.layers.MaxPooling2D(3, 1, "same")
    self.avg = keras.layers.AveragePooling2D(3, 1, "same")
    self.conv = keras.layers.Conv2D(features, 1)
    self.norm = keras.layers.BatchNormalization()

  def call(self, x, training=False):
    x = self.conv((self.max(x) + self.avg(x)) / 2)
    return self.norm(x, training=training)


LAYERS = {
  "identity": lambda features: keras.layers.Identity(),
  "mixed_pool_3x3": MixedPool,
}


def evaluate(names):
  model = keras.Sequential(
    [
      keras.Input(images.shape[1:]),
      keras.layers.Rescaling(1 / 255),
      *(LAYERS[name](4) for name in names),
      keras.layers.GlobalAveragePooling2D(),
      keras.layers.Dense(10),
    ]
  )
  loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
  model.compile("adam", loss, metrics=["accuracy"])
  history = model.fit(images, labels, epochs=1, validation_split=0.2, verbose=0)
  return history.history["val_accuracy"][-1]


space = pg.List([pg.oneof([*LAYERS]) for _ in range(4)])
strategy = pg.evolution.regularized_evolution(
  population_size=3, tournament_size=2
)
best = 0.0
for names, feedback in pg.sample(space, strategy, num_examples=6):
  reward = evaluate(names)
  feedback(reward)
  best = max(best, reward)
print(best)
