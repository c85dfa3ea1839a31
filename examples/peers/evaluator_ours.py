import nasnet_jax as nas


def evaluate(child):
  return -sum(child.decisions)


study = nas.Study("runs/hand", space=[3, 3, 4], strategy="evolution")
study.run(evaluate, children=40)
print(study.best(1)[0]["decisions"])
