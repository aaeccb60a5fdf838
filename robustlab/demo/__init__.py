"""The interactive page: draw a picture, press a class, watch a model change the picture towards it.

``serve`` and ``start`` bring it to a browser. ``session`` says what a press does, ``server`` answers requests, ``static/`` is the page.
"""

from robustlab.demo.launch import serve, start
from robustlab.demo.page import Page, make_page

__all__ = ["Page", "make_page", "serve", "start"]
