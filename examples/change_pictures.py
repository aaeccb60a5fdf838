"""Turn faint noise into each class through a robust classifier, then find a picture that one of its features responds to."""

import torch

import robustlab
from robustlab.seeding import example_keys, normal
from robustlab.synthesis import Search, features, last_relu, straight_through_relu
from robustlab.synthesis.edit import translate

model = robustlab.load("cifar10-small-l2")
y = torch.arange(model.num_classes)
noise = (0.5 + normal(example_keys(0, y), (3, 32, 32)) / 20).clamp(0, 1)  # another one for each class

# Minimize the cross-entropy to y over the L2 ball around the noise, in 20 steps of length 0.5.
made = translate(model, noise, y, Search(eps=5, step_size=0.5, steps=20))
believed = [model(x).softmax(1).gather(1, y[:, None])[:, 0] for x in (noise, made)]
for name, before, after in zip(model.classes, *(share.tolist() for share in believed), strict=True):
    print(f"{name:<11}{before:7.1%} -> {after:.1%}")

unit = int(model.head.weight[7].argmax())  # the feature that speaks most for horses
with straight_through_relu(last_relu(model)):  # so that it can be raised where it is off
    shown = features.visualize(model, unit, noise[:1], Search(None, step_size=0.2, steps=50))
active = features.activation(model, unit, shown)
print(f"feature {unit} of {model.arch}: {active(noise[:1]).item():.2f} in the noise, {active(shown).item():.2f} in its picture")
# To look at them: pictures.save("made.png", pictures.titled([("made", made)], model.classes, scale=3)) of robustlab.pictures
