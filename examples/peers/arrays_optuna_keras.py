import keras
import optuna
from digits import images, labels

LAYERS = {
  "conv": keras.layers.Conv2D,
  "separable": keras.layers.SeparableConv2D,
}


def network(trial):
  layers = [keras.Input(images.shape[1:]), keras.layers.Rescaling(1 / 255)]
  for i in range(trial.suggest_int("depth", 1, 3)):
    kind = trial.suggest_categorical(f"kind_{i}", [*LAYERS])
    width = trial.suggest_categorical(f"width_{i}", [4, 8])
    layers.append(LAYERS[kind](width, 3, padding="same", activation="relu"))
  layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
  model = keras.Sequential(layers)
  loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
  model.compile("adam", loss, metrics=["accuracy"])
  return model


def evaluate(trial):
  history = network(trial).fit(
    images, labels, epochs=1, validation_split=0.2, verbose=0
  )
  return history.history["val_accuracy"][-1]


study = optuna.create_study(
  direction="maximize",
  storage="sqlite:///arrays.db",
  study_name="arrays",
  load_if_exists=True,
)
study.optimize(evaluate, n_trials=3)
winner = network(study.best_trial)
winner.fit(images, labels, epochs=2, verbose=0)
print(winner.predict(images[:8], verbose=0).shape)
