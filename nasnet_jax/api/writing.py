"""`nas.report(run)` and `nas.export(run, "onnx")`: files made of a run."""

import pathlib

from nasnet_jax.data import image_data, places


def report(run) -> pathlib.Path:
  """Writes report.html and the figures into a run's folder; its path.

  Args:
    run: the folder, or a `Study`.

  Raises:
    FileNotFoundError: one line, if there is no run in the folder.
  """
  from nasnet_jax.report import html

  return html.write_report(_folder(run))


def export(run, format: str, out=None, **options) -> pathlib.Path:
  """Writes the network of a finished run in another framework's format, and
  compares what both answer; the folder of it.

  Args:
    run: the folder, or a `Study`.
    format: a key of `export.formats.FORMATS`, such as "onnx".
    out: a folder; None: exports/RUN/FORMAT.
    **options: fields of `export.artifact.Options`.

  Raises:
    ValueError: one line, for an unknown format or option, or a run that has no
      network.
  """
  import dataclasses

  from nasnet_jax.api import starting
  from nasnet_jax.export import artifact, formats

  starting.prepare()
  if format not in formats.FORMATS:
    hint = image_data.nearest(format, formats.FORMATS)
    raise ValueError(f"no format is called {format!r}: {hint}")
  known = [field.name for field in dataclasses.fields(artifact.Options)]
  for name in options:
    if name not in known:
      hint = image_data.nearest(name, known)
      raise ValueError(f"export has no option {name!r}: {hint}")
  folder = _folder(run)
  out = out or pathlib.Path("exports") / folder.name / format
  source = artifact.open_run(folder, artifact.Options(**options))
  kind = formats.FORMATS[format]
  return artifact.export(source, format, kind, out).folder


def _folder(run) -> pathlib.Path:
  return places.fetched(getattr(run, "folder", run))
