"""scikit-learn's digits, for both sides: not counted."""

import sklearn.datasets

images, labels = sklearn.datasets.load_digits(return_X_y=True)
images = (images * 15).astype("uint8").reshape(-1, 8, 8, 1)
