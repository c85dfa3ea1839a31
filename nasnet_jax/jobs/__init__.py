"""The jobs beside the search, and what all jobs share.

`train`, `scale` and `detect` each run a config; `predict` and `predict_boxes`
ask what they trained about image files. `job_config` reads a config's fields,
`resumable` is a training that goes on after a stop, `results` gives a run's
network back, `run_log` writes what a run says.
"""
