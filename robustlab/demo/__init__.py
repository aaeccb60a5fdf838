"""The interactive page: draw a picture, press a class, watch a model change the picture towards it.

``session`` says what a press does, ``server`` brings it to a browser, ``static/`` is the page.
"""
