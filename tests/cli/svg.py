"""Parses an SVG as XML and prints as JSON its texts, and how many circles it has of each colour.

svg.py FILE
"""

import collections
import json
import sys
import xml.etree.ElementTree

SPACE = "{http://www.w3.org/2000/svg}"


def main():
    root = xml.etree.ElementTree.parse(sys.argv[1]).getroot()
    circles = collections.Counter(it.get("fill") for it in root.iter(f"{SPACE}circle"))
    texts = [it.text.strip() for it in root.iter(f"{SPACE}text")]
    print(json.dumps({"root": root.tag.removeprefix(SPACE), "texts": texts, "circles": sorted(circles.values())}))


main()
