"""The standard library without processes: json, re, decimal, hashes, compression, csv, pickle."""

from __future__ import annotations

import bz2
import collections
import csv
import datetime
import decimal
import gzip
import hashlib
import io
import json
import lzma
import pickle
import random
import re
import shelve
import struct
import sys
import zlib


def main() -> None:
    data = {
        "numbers": list(range(5)),
        "text": "é\n",
        "nested": {"none": None, "true": True},
        "f": 1.5,
    }
    text = json.dumps(data, sort_keys=True)
    print(text, json.loads(text) == data)
    print(re.findall(r"(\w+)=(\d+)", "a=1, b=22, c=x"), re.sub(r"\b(\w)", r"<\1>", "one two"))
    print(decimal.Decimal(1) / 7, 2**200, divmod(-7, 3), round(2.675, 2), float("1e308") * 10)
    payload = b"payload " * 10000
    for module in (zlib, bz2, lzma):
        packed = module.compress(payload)
        print(module.__name__, module.decompress(packed) == payload)
    for name in ("md5", "sha1", "sha256", "blake2b"):
        print(name, hashlib.new(name, payload).hexdigest()[:16])
    print(hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 1000).hex()[:16])
    generator = random.Random(42)
    print([generator.randrange(100) for _ in range(5)], sorted(generator.sample(range(50), 4)))
    print(collections.Counter("mississippi").most_common(2), struct.pack(">IhB", 1, -2, 3))
    print(
        datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC if sys.version_info >= (3, 11) else None)
    )
    with open("table.csv", "w", newline="") as file:
        csv.writer(file).writerows([["a", "b"], [1, "two, three"]])
    with open("table.csv", newline="") as file:
        print(list(csv.reader(file)))
    with gzip.open("file.gz", "wt") as packed_file:
        packed_file.writelines(f"line {i}\n" for i in range(1000))
    with gzip.open("file.gz", "rt") as packed_file:
        print(sum(len(line) for line in packed_file))
    with shelve.open("shelf") as shelf:
        shelf["key"] = pickle.loads(pickle.dumps(data))
    with shelve.open("shelf") as shelf:
        print(shelf["key"] == data)
    print(io.StringIO("a\nb\n").readlines(), sys.getrecursionlimit(), sys.byteorder)
    numbers = [i * i % 1009 for i in range(200_000)]
    print(sum(numbers), max(numbers), len(set(numbers)))
    sys.exit(6)


if __name__ == "__main__":
    main()
