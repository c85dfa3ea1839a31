import optuna


def evaluate(trial):
  sizes = enumerate([3, 3, 4])
  return -sum(trial.suggest_int(f"d{i}", 0, size - 1) for i, size in sizes)


study = optuna.load_study(study_name="hand", storage="sqlite:///hand.db")
study.optimize(evaluate, n_trials=20)
print(len(study.trials))
