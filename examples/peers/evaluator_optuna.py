import optuna


def evaluate(trial):
  sizes = enumerate([3, 3, 4])
  return -sum(trial.suggest_int(f"d{i}", 0, size - 1) for i, size in sizes)


study = optuna.create_study(
  direction="maximize", storage="sqlite:///hand.db", study_name="hand"
)
study.optimize(evaluate, n_trials=40)
print(study.best_params)
