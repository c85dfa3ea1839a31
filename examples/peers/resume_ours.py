import nasnet_jax as nas


def evaluate(child):
  return -sum(child.decisions)


study = nas.Study("runs/hand")
study.run(evaluate, children=60)
print(len(study.children))
