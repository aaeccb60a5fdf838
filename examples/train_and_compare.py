"""Train a standard and a robust network on generated images and measure both, in Python rather than by command."""

from robustlab import L2, PGD, ThreatModel, evaluate
from robustlab.attacks import NFGSM
from robustlab.data.batches import Batches
from robustlab.data.catalog import open_dataset
from robustlab.models.zoo import build
from robustlab.training import Adversarial, Optimization, Standard, TrainingState, fit

train, test = (open_dataset("shapes", split=split, limit=limit) for split, limit in (("train", 1024), ("test", 200)))
mean, std = (v.tolist() for v in train.mean_std())
threat = ThreatModel(L2(), 0.5)
optimization = Optimization(epochs=2, batch_size=64, lr=0.1)

for loss in (Standard(), Adversarial(NFGSM(threat))):
    model = build("small", num_classes=10, mean=mean, std=std, classes=train.classes)
    state = TrainingState.fresh(model, optimization)
    for epoch in fit(state, Batches(train, 64, shuffle=True, drop_last=True), loss, optimization):
        print(f"epoch {epoch.number + 1}: loss {epoch.loss:.3f}, {100 * epoch.accuracy:.1f} % of the training images right")
    report = evaluate(model, Batches(test, 100).epoch(0), [PGD(threat, steps=10)])
    for name, rate in report.rates().items():
        print(f"  {name}: {rate}")
