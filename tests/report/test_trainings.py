"""Curves of trainings side by side, whatever was noted of them."""

import math

import numpy as np
import pytest

from nasnet_jax.report import runs, training_charts


def _curve(loss=(2.0, 1.0), accuracy=math.nan, valid=math.nan):
  epoch = np.array([1.0, 2.0])
  columns = [np.broadcast_to(np.float64(x), 2) for x in (accuracy, valid)]
  return runs.Curve(0, "train", epoch * 10, epoch, np.array(loss), *columns)


def _legend(figure):
  return [t.get_text() for one in figure.legends for t in one.get_texts()]


def test_loss_and_accuracies_are_drawn_in_percent():
  found = [("a", _curve(accuracy=0.5, valid=0.25)), ("b", _curve(valid=0.75))]
  figure = training_charts.training_figure(found)
  loss, accuracy = figure.axes
  assert [line.get_ydata()[0] for line in loss.lines] == [2.0, 2.0]
  assert [line.get_ydata()[0] for line in accuracy.lines] == [50, 25, 75]
  assert _legend(figure) == [
    "a, training",
    "b, training",
    "a, validation",
    "b, validation",
  ]


def test_epochs_are_whole_numbers_from_the_start_on():
  for epochs, ticks in ((1, [0, 1]), (20, [0, 5, 10, 15, 20])):
    epoch = np.arange(1.0, epochs + 1)
    curve = runs.Curve(0, "train", epoch, epoch, *[epoch / 100] * 3)
    figure = training_charts.training_figure([("a", curve)])
    retrained = training_charts.retrain_figure([curve])
    for axes in (figure.axes[1], retrained.axes[1]):
      low, high = axes.get_xlim()
      shown = [x for x in axes.get_xticks() if low <= x <= high]
      assert low == 0 and shown == ticks


def test_other_scores_leave_the_accuracy_of_training_out():
  found = [("a", _curve(accuracy=0.5, valid=0.25))]
  _, score = training_charts.training_figure(found, "AP50").axes
  assert [line.get_ydata()[0] for line in score.lines] == [25]
  assert score.get_ylabel() == "AP50, %"


@pytest.mark.parametrize("score", ["", "AP50"])
def test_without_scores_the_loss_alone_is_drawn(score, tmp_path):
  """As of a detector without validation images."""
  curve = _curve(accuracy=0.5 if score else math.nan)
  figure = training_charts.training_figure([("training", curve)], score)
  (loss,) = figure.axes
  assert loss.get_ylabel() == "training loss" and loss.get_xlabel() == "epoch"
  assert _legend(figure) == ["training"]


def test_a_training_that_noted_nothing_has_an_empty_picture():
  nothing = _curve(loss=(math.nan, math.nan))
  assert _legend(training_charts.training_figure([("training", nothing)])) == []
