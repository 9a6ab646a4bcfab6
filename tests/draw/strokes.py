"""Strokes of ten digits on a board of 280 × 280 pixels, and a function that draws them."""

import json
import math


def arc(x, y, radius_x, radius_y, start, end, count=24):
    """Return points of an ellipse; angles in degrees, clockwise from the right."""
    angles = [math.radians(start + (end - start) * k / count) for k in range(count + 1)]
    return [[x + radius_x * math.cos(a), y + radius_y * math.sin(a)] for a in angles]


STROKES = {
    0: [arc(140, 140, 60, 85, -90, 270)],
    1: [[[150, 50], [145, 110], [140, 170], [136, 230]]],
    2: [[*arc(138, 100, 55, 50, -180, 45), [90, 222], [200, 222]]],
    3: [[*arc(135, 95, 50, 42, -160, 80), *arc(135, 183, 56, 48, -80, 160)]],
    4: [[[95, 55], [85, 145], [195, 140]], [[180, 60], [172, 140], [165, 235]]],
    5: [[[195, 60], [105, 62], [98, 130], *arc(135, 175, 55, 50, -110, 140)]],
    6: [[[175, 50], [120, 100], [92, 165], *arc(140, 180, 48, 48, 180, 540)]],
    7: [[[85, 65], [195, 62], [160, 140], [130, 232]]],
    8: [[*arc(140, 95, 42, 40, 90, -270), *arc(140, 182, 52, 46, -90, 270)]],
    9: [[*arc(140, 105, 48, 45, 0, -360), [186, 160], [178, 235]]],
}


def draw(browser, strokes):
    """Draw with real pointer events."""
    box = json.loads(browser.evaluate("JSON.stringify(board.getBoundingClientRect())"))
    scale = box["width"] / 280

    def send(kind, point):
        x, y = (box["left"] + scale * point[0], box["top"] + scale * point[1])
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1)

    for stroke in strokes:
        send("mousePressed", stroke[0])
        for point in stroke[1:]:
            send("mouseMoved", point)
        send("mouseReleased", stroke[-1])
