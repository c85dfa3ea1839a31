"""The metadata of a TFLite image classifier, as phones' libraries read it.

A flatbuffer of TensorFlow's metadata_schema.fbs (version 1.5.0, "M001"), which
ML Kit, MediaPipe and the Task Library find in the model's buffer
TFLITE_METADATA: how pixels become the input, and which file names the classes.
It is written slot by slot: no package that reads or writes this schema can be
relied on here, and it is small.
"""

import numpy as np

LABELS = "labels.txt"
# Of the schema: values of its enumerations and unions.
_AXIS_LABELS, _RGB, _GRAYSCALE = 2, 1, 2
_FEATURE, _IMAGE, _NORMALIZATION = 1, 2, 1
# Of its tables: how many fields each has.
_SIZES = {
  "ModelMetadata": 8,
  "SubGraphMetadata": 10,
  "TensorMetadata": 7,
  "AssociatedFile": 5,
  "Content": 3,
  "ImageProperties": 2,
  "ImageSize": 2,
  "FeatureProperties": 0,
  "ProcessUnit": 2,
  "NormalizationOptions": 2,
  "Stats": 2,
}
_OLDEST_PARSER = "1.0.0"


def labels(source) -> str:
  """The text of labels.txt: a class a line, in the order of the logits.
  source: an `artifact.Source`."""
  names = source.result["data"]["classes"]
  return "".join(" ".join(str(name).split()) + "\n" for name in names)


def build(source) -> bytes:
  """The flatbuffer of an `artifact.Source`."""
  made = _Tables()
  graph = made.table(
    "SubGraphMetadata",
    {2: made.tables([_images(made, source)]), 3: made.tables([_answer(made)])}
    if source.cut
    else {
      2: made.tables([_images(made, source)]),
      3: made.tables([_answer(made, labelled=True)]),
    },
  )
  return made.finish(
    made.table(
      "ModelMetadata",
      {
        0: made.text("features" if source.cut else "image classifier"),
        1: made.text(source.about),
        2: made.text(source.metadata["nasnet_jax"]),
        3: made.tables([graph]),
        4: made.text("nasnet_jax"),
        7: made.text(_OLDEST_PARSER),
      },
    )
  )


def _images(made, source) -> int:
  """The input: an image, and how its pixels are whitened if it has to be."""
  h, w, channels = source.image_shape
  if source.fixed:
    _, h, w = source.fixed
  size = made.table("ImageSize", numbers={0: ("Uint32", w), 1: ("Uint32", h)})
  color = _RGB if channels == 3 else _GRAYSCALE
  image = made.table("ImageProperties", {1: size}, numbers={0: ("Int8", color)})
  fields = {
    0: made.text("image"),
    1: made.text(source.metadata["whitening"]),
    3: made.union("Content", _IMAGE, image),
  }
  mean, std = (255 * array for array in source.mean_std)
  low, high = np.zeros(channels), np.full(channels, 255.0)
  if source.whiten is None:
    unit = made.table(
      "NormalizationOptions", {0: made.floats(mean), 1: made.floats(std)}
    )
    unit = made.union("ProcessUnit", _NORMALIZATION, unit)
    fields[4] = made.tables([unit])
    low, high = (low - mean) / std, (high - mean) / std
  fields[5] = made.table("Stats", {0: made.floats(high), 1: made.floats(low)})
  return made.table("TensorMetadata", fields)


def _answer(made, labelled: bool = False) -> int:
  """The output: a logit for each line of labels.txt, or features."""
  kind = made.table("FeatureProperties")
  fields = {
    0: made.text("logits" if labelled else "features"),
    3: made.union("Content", _FEATURE, kind),
  }
  if labelled:
    names = made.table(
      "AssociatedFile",
      {0: made.text(LABELS), 1: made.text("the classes, in their order")},
      numbers={2: ("Int8", _AXIS_LABELS)},
    )
    fields[6] = made.tables([names])
  return made.table("TensorMetadata", fields)


class _Tables:
  """A flatbuffer's tables, each made after those that it names."""

  def __init__(self):
    import flatbuffers

    self._builder = flatbuffers.Builder(1024)

  def text(self, text: str) -> int:
    return self._builder.CreateString(text)

  def floats(self, values) -> int:
    return self._builder.CreateNumpyVector(np.asarray(values, np.float32))

  def tables(self, offsets: list[int]) -> int:
    """A vector of tables."""
    self._builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
      self._builder.PrependUOffsetTRelative(offset)
    return self._builder.EndVector()

  def table(self, kind: str, offsets=(), numbers=()) -> int:
    """A table of the schema.

    Args:
      offsets: {field: what is there}.
      numbers: {field: (type, value)}.
    """
    self._builder.StartObject(_SIZES[kind])
    for field, offset in dict(offsets).items():
      self._builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, (number, value) in dict(numbers).items():
      prepend = getattr(self._builder, f"Prepend{number}Slot")
      prepend(field, value, 0)
    return self._builder.EndObject()

  def union(self, kind: str, which: int, offset: int) -> int:
    """A table whose first two fields are a union."""
    return self.table(kind, {1: offset}, {0: ("Uint8", which)})

  def finish(self, root: int) -> bytes:
    self._builder.Finish(root, file_identifier=b"M001")
    return bytes(self._builder.Output())
