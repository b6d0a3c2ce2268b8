"""How the pictures look: wide enough for a page, with letters that a phone shows at ten pixels."""

from __future__ import annotations

from enumerator.plots.style import COLOURS

# Okabe & Ito's colours, told apart by all.
BLUE, ORANGE, GREEN, PINK, SKY, RED, BLACK = COLOURS
GREY = "0.6"
# Inches; 400 pixels of a phone make 10 points of the text 11 pixels of it.
WIDTH = 5.0
# Pixels per inch: sharp on a page 800 pixels wide, with two pixels of the screen to each.
RESOLUTION = 220
SETTINGS = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
}
