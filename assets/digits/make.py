#!/usr/bin/env python3
"""Makes digits.bin, the data set that quee carries inside its program.

    python3 assets/digits/make.py                  # fetches the scikit-learn wheel with pip
    python3 assets/digits/make.py digits.csv.gz    # or takes the table from a copy at hand

Source: `sklearn/datasets/data/digits.csv.gz` of the PyPI package scikit-learn, which is the test part of the UCI data set
"Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, doi 10.24432/C50P49, CC BY 4.0): 1,797 lines of 64
pixel values from 0 to 16, row by row, then the digit. Only the standard library and pip are needed. The table's checksum
is fixed below, so every run writes the same bytes, whatever version of scikit-learn the table comes from.

digits.bin, all numbers little-endian:

    offset 0   8 bytes   magic "QUEEDIG1"
    offset 8   5 x u32   pictures, height, width, classes, largest pixel value
    offset 28  pictures  one after another: label (1 byte), then height x width pixels (1 byte each), row by row
"""

import csv
import gzip
import hashlib
import pathlib
import struct
import subprocess
import sys
import tempfile
import zipfile

SOURCE = "scikit-learn==1.9.1"
MEMBER = "sklearn/datasets/data/digits.csv.gz"
TABLE_SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"
PICTURES, HEIGHT, WIDTH, CLASSES, MAX = 1797, 8, 8, 10, 16


def fetch() -> bytes:
    """The compressed table out of the scikit-learn wheel."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "--dest", folder, SOURCE], check=True)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(MEMBER)


def main() -> None:
    """Reads the table, checks it and writes digits.bin next to this file."""
    compressed = pathlib.Path(sys.argv[1]).read_bytes() if len(sys.argv) > 1 else fetch()
    table = gzip.decompress(compressed)
    found = hashlib.sha256(table).hexdigest()
    if found != TABLE_SHA256:
        sys.exit(f"the table is not the one expected: sha256 {found}, expected {TABLE_SHA256}")

    rows = [[int(float(value)) for value in row] for row in csv.reader(table.decode("ascii").splitlines())]
    assert len(rows) == PICTURES and all(len(row) == HEIGHT * WIDTH + 1 for row in rows)
    out = bytearray(b"QUEEDIG1" + struct.pack("<5I", PICTURES, HEIGHT, WIDTH, CLASSES, MAX))
    for *pixels, label in rows:
        assert 0 <= label < CLASSES and all(0 <= value <= MAX for value in pixels)
        out += bytes([label, *pixels])

    target = pathlib.Path(__file__).with_name("digits.bin")
    target.write_bytes(out)
    print(f"{target}: {len(out)} bytes, sha256 {hashlib.sha256(out).hexdigest()}")


if __name__ == "__main__":
    main()
