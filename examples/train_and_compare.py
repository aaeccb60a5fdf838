"""A standard and a robust network, trained on the same generated images: as good on ordinary images, but only one resists an attack."""

from robustlab.data.catalog import open_dataset
from robustlab.training import train

CLASSES = ["disc", "ring", "square"]
images, test = (open_dataset("shapes", split=split, classes=CLASSES, limit=n) for split, n in (("train", 600), ("test", 100)))

for recipe in ("standard", "fast-l2"):
    # Of the training images, 60 choose the epoch; the test images are attacked at the end, within 0.5 in L2.
    trained = train(images, recipe=recipe, epochs=4, batch_size=32, lr=0.1, val_size=60, no_augment=True, test=test, norm="l2", eps=0.5)
    print(trained, end="\n\n")
