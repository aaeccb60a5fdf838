"""Turn faint noise into every class with a robust classifier, then see which picture one of its features responds to."""

import torch

import robustlab
from robustlab.data import ImageSet
from robustlab.seeding import example_keys, normal
from robustlab.synthesis import Search, features, last_relu, straight_through_relu

model = robustlab.load("cifar10-small-l2")
y = torch.arange(model.num_classes)
noise = (0.5 + normal(example_keys(0, y), (3, 32, 32)) / 20).clamp(0, 1)  # another one for each class

# A task by its name, on any labelled images. `translate` goes to the class after each label, in an L2 ball around the image; another
# classifier, which did not make the pictures, judges them.
images = ImageSet(noise, y, model.classes, "noise")
pictures = robustlab.synthesize("translate", "cifar10-small-l2", images, eps=5, step_size=0.5, steps=20)
print(pictures)  # in a notebook they show themselves; pictures.save("made.png") writes them, and what makes them again

# The same from its parts: any objective, searched in any ball, moving pixels or other parameters.
unit = int(model.head.weight[7].argmax())  # the feature that speaks most for horses
with straight_through_relu(last_relu(model)):  # so that it can be raised where it is off
    shown = features.visualize(model, unit, noise[:1], Search(None, step_size=0.2, steps=50))
active = features.activation(model, unit, shown)
print(f"feature {unit} of {model.arch}: {active(noise[:1]).item():.2f} in the noise, {active(shown).item():.2f} in its picture")
