"""What the caller need not set up."""

import logging

from nasnet_jax.api import starting


def test_lines_are_printed_where_nobody_has_set_up_logging(capsys):
  log = logging.getLogger("nasnet_jax.somewhere")
  with starting.spoken():
    log.info("goes on")
  log.info("is over")
  assert capsys.readouterr().out == "goes on\n"


def test_lines_are_left_to_a_caller_who_has(capsys, caplog):
  with caplog.at_level(logging.INFO, "nasnet_jax"), starting.spoken():
    logging.getLogger("nasnet_jax.somewhere").info("goes on")
  assert capsys.readouterr().out == ""
  assert caplog.messages == ["goes on"]
