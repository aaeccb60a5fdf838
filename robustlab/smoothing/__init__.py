"""Randomized smoothing (Cohen, Rosenfeld, Kolter 2019): predictions of a classifier under Gaussian noise, with radii that are proved.

    found = certify(model, "photos/", sigma=0.25)
    print(found)

The smoothed classifier answers with the class that the model predicts most often when noise of deviation sigma is added to an image.
No change of the image whose L2 norm is below the radius changes that answer. Noisy images leave [0, 1], and are meant to: noise that is
clipped is no longer Gaussian, and the proof is gone.
"""

from robustlab.smoothing.certificates import Certificate, Certificates, Prediction, Predictions
from robustlab.smoothing.certifying import certify, predict

__all__ = ["Certificate", "Certificates", "Prediction", "Predictions", "certify", "predict"]
