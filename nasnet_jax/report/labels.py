"""Names that tell folders apart."""

import pathlib


def label_folders(folders: list[pathlib.Path]) -> list[str]:
  """The folders' own names, with as many of the folders above as needed."""
  parts = [folder.resolve().parts for folder in folders]
  for depth in range(1, max(map(len, parts), default=0) + 1):
    labels = ["/".join(part[-depth:]) for part in parts]
    if len({*labels}) == len(labels):
      break
  return labels if parts else []
